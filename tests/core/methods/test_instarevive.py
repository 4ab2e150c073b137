"""InstaRevive's one step against the golden vectors, in every variant of its input and its prompt."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import parity
import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError
from kintsugi.core.methods.instarevive import PRESETS as TEXTS
from kintsugi.core.methods.instarevive import InstaRevive, OneStepConstants, latent_passing_conv, release_tiles
from kintsugi.core.models.folding import memory_of
from kintsugi.core.models.mini import build_pixart
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.options import PRESETS
from originals.instarevive_folder import write_folder

TINY = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
    "cross_attention_dim": 16, "sample_size": 8, "caption_channels": 12,
}  # fmt: skip


def student(**constants: object) -> InstaRevive:
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    transformer = build_pixart(TINY)
    return InstaRevive(transformer, PromptEmbedding(torch.randn(1, 5, 12), mask=mask), OneStepConstants(**constants)).eval()  # type: ignore[arg-type]


def test_every_inference_tensor_matches_the_original() -> None:
    checks = parity.run_parity("instarevive", GOLDEN / "instarevive", "inference")
    assert [parity.line(check) for check in checks if not check.passed] == []
    tensors = {check.tensor for check in checks}
    assert {f"case{case}.{kind}.mask{axes}d" for case in (0, 1) for kind in ("eps", "x0") for axes in (2, 3)} <= tensors
    assert {"alphas_cumprod", "output", "wavelet", "adain", "tiles of 64 x 200"} <= tensors


def test_a_folder_with_other_numbers_made_by_other_code_holds(tmp_path: Path) -> None:
    write_folder(tmp_path / "other")
    checks = parity.run_parity("instarevive", tmp_path / "other", "inference")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert [check.file for check in checks].count("step.json") == 9
    assert {"restorer.json", "single.json", "finish.json"} <= {check.file for check in checks}


def test_every_training_tensor_and_number_matches_the_original() -> None:
    checks = parity.run_parity("instarevive", GOLDEN / "instarevive", "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    tensors = {check.tensor for check in checks}
    assert {
        f"rows[{row}].{mode}.{name}" for row in range(5) for mode in ("literal", "rms") for name in ("T_max", "t", "alpha_mix")
    } <= tensors
    assert {"x_t", "x0_real", "x0_fake", "grad.eq5", "grad.score", "grad.normalised", "grad.surrogate_sum_over_B", "loss.total"} <= tensors


def test_training_holds_with_other_schedules_sizes_and_guidance(tmp_path: Path) -> None:
    write_folder(tmp_path / "other")
    checks = parity.run_parity("instarevive", tmp_path / "other", "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert {check.file for check in checks} == {"far.json", "near.json"}


def test_one_step_does_not_depend_on_the_micro_batch() -> None:
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=3)):
        assert all(check.passed for check in parity.run_parity("instarevive", GOLDEN / "instarevive", "inference"))


def test_published_weights_see_padding_and_a_keep_mask_hides_it() -> None:
    latent = torch.randn(2, 4, 8, 6)
    for mode, sees_padding in (("bias", True), ("keep", False)):
        method = student(mask_mode=mode)
        before = method.restore_latent(latent, None)
        method.prompt[:, 3:] += 1
        assert ((method.restore_latent(latent, None) - before).abs().max() > 1e-4) == sees_padding


def test_a_mask_of_ones_is_the_same_as_none_in_both_modes() -> None:
    latent, tokens = torch.randn(1, 4, 4, 4), torch.randn(1, 5, 12)
    biased, kept = (student(mask_mode=mode).with_prompt(PromptEmbedding(tokens)).restore_latent(latent, None) for mode in ("bias", "keep"))
    assert (biased - kept).abs().max() <= 1e-5 * kept.abs().max()


@pytest.mark.parametrize("noise_input", [False, True])
@pytest.mark.parametrize("mask_mode", ["bias", "keep"])
def test_a_folded_student_says_the_same_for_any_size_and_batch_in_less_memory(mask_mode: str, noise_input: bool) -> None:
    method = student(mask_mode=mask_mode, noise_input=noise_input)
    folded = copy.deepcopy(method)
    folded.fold()
    assert memory_of(folded) < memory_of(method)
    for shape in ((1, 4, 8, 8), (3, 4, 6, 10)):
        latent, noise = torch.randn(shape), torch.randn(shape) if noise_input else None
        expected, found = method.restore_latent(latent, noise), folded.restore_latent(latent, noise)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(BadValueError, match="fold_constants"):
        folded.with_prompt(PromptEmbedding(method.prompt))


def test_noise_enters_by_a_convolution_that_starts_by_passing_the_latent_alone() -> None:
    plain, noisy = student(), student(noise_input=True)
    assert (plain.noise_channels, noisy.noise_channels) == (0, 4)
    latent, noise = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 8)
    assert torch.equal(noisy.restore_latent(latent, noise), plain.restore_latent(latent, None))
    assert noisy.concat_conv is not None
    torch.nn.init.normal_(noisy.concat_conv.weight, std=0.1)
    assert not torch.equal(noisy.restore_latent(latent, noise), noisy.restore_latent(latent, -noise))
    assert latent_passing_conv(16)(torch.randn(1, 32, 4, 4)).shape == (1, 16, 4, 4)


def test_one_call_takes_no_larger_side_than_its_constants_say() -> None:
    assert student().largest_side is None and student(largest_side=40).largest_side == 40
    with pytest.raises(BadValueError, match="largest_side"):
        OneStepConstants(largest_side=0)


def test_another_prompt_leaves_the_networks_and_brings_its_own_length() -> None:
    method = student(noise_input=True)
    told = method.with_prompt(PromptEmbedding(torch.randn(1, 9, 12), mask=torch.ones(1, 9)))
    assert told.transformer is method.transformer and told.concat_conv is method.concat_conv
    assert told.prompt_mask.shape == (1, 9) and told.constants == method.constants
    latent = torch.randn(1, 4, 4, 4)
    assert not torch.equal(told.restore_latent(latent, latent), method.restore_latent(latent, latent))


def test_the_timestep_decides_how_much_of_the_prediction_is_taken_away() -> None:
    latent = torch.randn(1, 4, 4, 4)
    method = student(timestep=400)
    predicted = method.predict_noise(latent, None, torch.tensor([400]))
    assert (method(latent) - (2.27289 * latent - 2.04109 * predicted)).abs().max() < 1e-4
    method.constants = replace(method.constants, timestep=0)
    predicted = method.predict_noise(latent, None, torch.tensor([0]))
    assert (method(latent) - latent).abs().max() <= 0.011 * predicted.abs().max() + 1e-3


def test_the_release_puts_its_last_window_flush_with_the_border() -> None:
    assert [(tile.top, tile.left) for tile in release_tiles(64, 130, 64, 56)] == [(0, 0), (0, 56), (0, 66)]


def test_every_preset_has_its_text() -> None:
    assert tuple(TEXTS) == PRESETS
