"""A prior's schedule is what its scheduler says, and only a prediction of the noise is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.diffusion import ddpm_schedule, linear_betas, scaled_linear_betas
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.priors import load_prior
from kintsugi.core.weights.schedules import schedule_at
from sdxl_layouts import write_sdxl_checkpoint, write_sdxl_folder
from test_priors import folder_of
from torch import Tensor

BETAS = (0.00085, 0.012)
STEPS = torch.arange(1000)


def table(place: Path | None) -> Tensor:
    return schedule_at(place, BETAS).signal(STEPS)


def test_sdxl_is_scaled_linear_where_nothing_says_otherwise(tmp_path: Path) -> None:
    expected = ddpm_schedule(scaled_linear_betas()).signal(STEPS)
    assert torch.equal(table(None), expected) and torch.equal(table(tmp_path), expected)
    assert torch.equal(table(write_sdxl_folder(tmp_path / "base")), expected)
    assert torch.equal(table(write_sdxl_checkpoint(tmp_path / "base.safetensors")), expected)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_other_betas_of_a_folder_are_taken(tmp_path: Path, kind: str) -> None:
    folder = write_sdxl_folder(tmp_path / "base", beta_schedule=kind, beta_start=0.001, beta_end=0.01)
    betas = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}[kind](0.001, 0.01)
    assert torch.equal(table(folder), ddpm_schedule(betas).signal(STEPS))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prediction_type": "v_prediction"}, r"prediction_type is 'v_prediction', expected 'epsilon'"),
        ({"rescale_betas_zero_snr": True}, r"rescale_betas_zero_snr is True, expected False"),
        ({"num_train_timesteps": 500}, r"num_train_timesteps is 500, expected 1000"),
        ({"trained_betas": [0.1]}, r"trained_betas is \[0\.1\], expected None"),
        ({"beta_schedule": "squaredcos_cap_v2"}, r"betas 'squaredcos_cap_v2' from 0\.00085 to 0\.012, expected numbers and scaled_linear"),
        ({"beta_start": None}, r"from None to 0\.012"),
    ],
)
def test_what_does_not_predict_the_noise_is_refused_when_it_is_loaded(host: LocalHost, changes: dict[str, Any], fault: str) -> None:
    write_sdxl_folder(host.folders.models / "diffusers" / "mine", **changes)
    with pytest.raises(WeightsError, match=rf"scheduler_config\.json: .*{fault}"):
        load_prior("sdxl", "diffusers/mine")


@pytest.mark.parametrize("mark", ["v_pred", "edm_vpred.sigma_max", "edm_mean"])
def test_a_checkpoint_marked_for_another_prediction_is_refused(host: LocalHost, mark: str) -> None:
    write_sdxl_checkpoint(host.folders.models / "checkpoints" / "v.safetensors", **{mark: torch.zeros(1)})
    with pytest.raises(WeightsError, match=rf"v\.safetensors: is marked by {mark}: it does not predict the noise"):
        load_prior("sdxl", "checkpoints/v.safetensors")


def test_published_families_of_one_step_methods_have_none(host: LocalHost) -> None:
    folder_of("sd3", host.folders.models)
    assert load_prior("sd3").schedule is None
