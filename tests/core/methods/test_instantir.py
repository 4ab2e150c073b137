"""InstantIR's networks and loops against the golden vectors, and what its options promise."""

from __future__ import annotations

from dataclasses import replace

import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.imaging.tiling import plan_tiles
from kintsugi.core.methods.instantir import Options, Step, leading_timesteps, sample
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR
from kintsugi.core.methods.instantir_tiles import TiledInstantIR
from kintsugi.core.models.instant_unet import InstantUNet
from parity_cases.instantir import Networks, conditions_of
from parity_cases.sidecar import Sidecar, load_tensors
from torch import Tensor

FOLDER = GOLDEN / "instantir"


def test_every_golden_tensor_holds() -> None:
    checks = parity.run_parity("instantir", FOLDER, "inference")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert len(checks) == 363


@pytest.fixture(scope="module")
def networks() -> Networks:
    sidecar = Sidecar.read(FOLDER / "f_loop_default.json")
    assert sidecar is not None
    return Networks(sidecar)


@pytest.fixture(scope="module")
def model(networks: Networks) -> InstantIR:
    return InstantIR(InstantUNet(networks.unet, networks.dcp), networks.switch, networks.aggregator, networks.schedule)


@pytest.fixture(scope="module")
def conditions(networks: Networks, model: InstantIR) -> Conditions:
    with torch.inference_mode():
        return conditions_of(networks, model, 7.0)


DEGRADED = load_tensors(FOLDER / "f_inputs.safetensors")["lq_latent"]
SHORT = Options(steps=4)


def run(model: InstantIR, conditions: Conditions, options: Options, reference: Tensor | None = None) -> list[Step]:
    random = torch.Generator().manual_seed(3)
    with torch.inference_mode(), model.unet.dcp.attached(model.unet.unet):
        return list(sample(model, DEGRADED, conditions, options, lambda: torch.randn(DEGRADED.shape, generator=random), reference))


def test_thirty_steps_are_those_of_the_release() -> None:
    assert leading_timesteps(30)[:2] + leading_timesteps(30)[-2:] == [958, 925, 34, 1]


def test_two_runs_with_one_seed_are_identical(model: InstantIR, conditions: Conditions) -> None:
    first, second = (run(model, conditions, SHORT)[-1].z_next for _ in range(2))
    assert torch.equal(first, second)


def test_outside_the_preview_window_the_reference_takes_its_place(model: InstantIR, conditions: Conditions) -> None:
    closed = replace(SHORT, preview_start=1.0)
    own, given = run(model, conditions, closed), run(model, conditions, closed, torch.ones_like(DEGRADED))
    assert all(step.preview is None for step in own)
    assert torch.equal(own[0].reference, torch.cat([DEGRADED] * 2)) and torch.equal(given[0].reference, torch.ones_like(own[0].reference))


def test_a_control_window_that_opens_late_adds_nothing_before(model: InstantIR, conditions: Conditions) -> None:
    steps = run(model, conditions, replace(SHORT, control_start=0.5))
    assert [bool(step.residuals) for step in steps] == [False, False, True, True]


def test_previews_every_second_step_serve_the_step_between(model: InstantIR, conditions: Conditions) -> None:
    steps = run(model, conditions, replace(SHORT, preview_every=2))
    assert steps[1].preview is steps[0].preview and steps[2].preview is not steps[1].preview


def test_delta_stays_where_the_last_preview_serves_again(model: InstantIR, conditions: Conditions) -> None:
    steps = run(model, conditions, replace(SHORT, preview_every=2, adares="paper"))
    assert torch.equal(steps[1].delta, steps[0].delta) and not torch.equal(steps[2].delta, steps[1].delta)


def test_conditional_previews_are_one_look_for_both_halves(model: InstantIR, conditions: Conditions) -> None:
    both = run(model, conditions, SHORT)[0]
    one = run(model, conditions, replace(SHORT, conditional_previews=True))[0]
    assert both.preview is not None and one.preview is not None
    assert torch.equal(*one.preview.latent.chunk(2))
    assert (one.preview.latent[1:] - both.preview.latent[1:]).abs().max() < 1e-5


def test_released_adares_goes_on_looking_while_the_aggregator_rests(model: InstantIR, conditions: Conditions) -> None:
    steps = run(model, conditions, replace(SHORT, adares="released"))
    assert all(step.preview is not None for step in steps)
    assert not any(step.residuals for step in steps if step.reference is None)


def test_one_tile_is_the_whole_and_several_agree_about_the_noise(model: InstantIR, conditions: Conditions) -> None:
    whole = run(model, conditions, SHORT)[-1].z_next
    parts = (model.unet, model.previewer, model.aggregator, model.schedule)
    assert torch.equal(run(TiledInstantIR(*parts, plan_tiles(16, 16, 16, 4, 2)), conditions, SHORT)[-1].z_next, whole)
    tiled = run(TiledInstantIR(*parts, plan_tiles(16, 16, 8, 4, 2)), conditions, SHORT)
    assert torch.equal(tiled[0].z, run(model, conditions, SHORT)[0].z)
    assert tiled[-1].z_next.isfinite().all() and not torch.equal(tiled[-1].z_next, whole)


def test_guidance_rescale_keeps_the_deviation_of_the_conditional_prediction(model: InstantIR, conditions: Conditions) -> None:
    plain, rescaled = (run(model, conditions, replace(SHORT, guidance_rescale=amount))[0] for amount in (0.0, 1.0))
    assert plain.eps.std() > rescaled.eps.std()
