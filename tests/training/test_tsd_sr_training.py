"""TSD-SR's training: its losses by the golden vectors and by their equations, and students that come out of a run and restore."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import parity
import pytest
import torch
from kintsugi.core.errors import RecipeError, WeightsError
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.methods.tsd_sr import TsdSr
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.mini import build_sd3_transformer
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.options import LoadOptions
from kintsugi.core.weights.priors import read_vae
from kintsugi.core.weights.tsd_sr import TRANSFORMER_TARGETS, VAE_TARGETS, read_generator
from kintsugi.training.data import Batch
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.tsd_sr_losses import (
    auxiliary_loss,
    auxiliary_weighting,
    follow_trajectory,
    point_weights,
    trajectory_indices,
    tsd_direction,
    tsm_direction,
    vsd_direction,
)
from kintsugi.training.tsd_sr_networks import AUXILIARY_TARGETS, Guidance, sd3_velocity
from originals.tsd_sr_loop import write_training_folder
from torch import Tensor, nn

GOLDEN = Path(parity.__file__).parent / "golden" / "tsd-sr"
NETWORK = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "num_layers": 2, "attention_head_dim": 4, "num_attention_heads": 2,
    "joint_attention_dim": 12, "caption_projection_dim": 8, "pooled_projection_dim": 10, "out_channels": 16, "pos_embed_max_size": 12,
}  # fmt: skip
TEXT = {"tokens": 4, "width": NETWORK["joint_attention_dim"], "pooled": NETWORK["pooled_projection_dim"]}
TINY = {
    "steps": "2", "batch": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'", "data.source": "folder",
    "data.crop": "32", "data.workers": "0", "data.bank": "null", "settings.rank": "2",
}  # fmt: skip


# --- the equations


def test_every_golden_loss_point_and_gradient_holds() -> None:
    """Of the loop that the paper means and of the released one, whose distillation has no gradient."""
    checks = parity.run_parity("tsd-sr", GOLDEN, "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    assert {check.file for check in checks} == {
        *(f"e_train_{name}{part}.json" for name in ("dasm", "dasm_teacher_lora", "plain_mixed_t") for part in ("", "_grads")),
        "e_train_dasm_grads_released.json",
    } and len(checks) == 647  # fmt: skip


def test_a_folder_with_other_numbers_made_by_other_code_holds(tmp_path: Path) -> None:
    write_training_folder(tmp_path / "other")
    checks = parity.run_parity("tsd-sr", tmp_path / "other", "training")
    assert [parity.line(check) for check in checks if not check.passed] == []
    parts = ("", "_grads", "_grads_released")
    assert {check.file for check in checks} == {f"{name}{part}.json" for name in ("several", "one") for part in parts}


def toward(target: float) -> Any:
    """The velocity at which every latent comes from that value: v = (z_t - target) / sigma."""
    return lambda z_t, sigma: (z_t - target) / sigma[:, None, None, None]


def test_a_trajectory_follows_each_networks_own_flow() -> None:
    """Along a straight flow z_s - z_0 = s / t (z_t - z_0), whatever the steps."""
    torch.manual_seed(0)
    student, clean, sigmas = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([[0.8, 0.6, 0.4], [0.5, 0.4, 0.1]])
    points = follow_trajectory(student, clean, sigmas, toward(1.0), toward(-1.0))
    last = (sigmas[:, 1] / sigmas[:, 0])[:, None, None, None]
    assert len(points) == 2 and torch.equal(points[1].sigma, sigmas[:, 1])
    torch.testing.assert_close(points[1].student, -1 + last * (student + 1))
    torch.testing.assert_close(points[1].clean, 1 + last * (clean - 1))


def test_the_directions_are_the_weighted_differences_of_their_equations() -> None:
    sigmas = torch.tensor([[0.5, 0.2, 0.1]])
    points = follow_trajectory(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), sigmas, lambda z, s: z + 3, lambda z, s: z + 1)
    weights = point_weights(points, [1.0, 0.5])
    vsd, tsm = vsd_direction(points, weights), tsm_direction(points, weights)
    # The auxiliary network takes 0 to -0.3, the teacher 1 to -0.2; the teacher says 2 more, and at both places what they differ by.
    assert vsd.item() == pytest.approx(2 * (0.25 + 0.5 * 0.04))
    assert tsm.item() == pytest.approx(0.25 * -1 + 0.5 * 0.04 * (-0.3 + 0.2))
    assert tsd_direction(vsd, tsm, 0.7).item() == pytest.approx(0.7 * vsd.item() + 0.3 * tsm.item())


def test_what_overflowed_adds_nothing() -> None:
    nothing, odd = torch.zeros(1, 1, 1, 2), torch.tensor([[[[torch.nan, 1.0]]]])
    points = follow_trajectory(nothing, nothing, torch.tensor([[0.5, 0.4]]), lambda z, s: odd, toward(0.0))
    assert vsd_direction(points, point_weights(points, [1.0])).flatten().tolist() == [0.0, 0.25]


def test_a_trajectory_that_would_leave_the_table_gets_denser() -> None:
    first, stretch = torch.tensor([100, 905]), torch.tensor([10, -17])
    assert trajectory_indices(first, 4, 50, 999, stretch).tolist() == [[100, 152, 205, 257, 310], [905, 928, 952, 975, 999]]


def test_the_auxiliary_loss_weighted_by_the_noise_is_the_flows_own() -> None:
    torch.manual_seed(0)
    student, eps, velocity, sigma = *torch.randn(3, 2, 4, 6, 6), torch.tensor([0.2, 0.9])
    noised = student + sigma[:, None, None, None] * (eps - student)
    clean = noised - sigma[:, None, None, None] * velocity
    loss = auxiliary_loss(clean, student, auxiliary_weighting("sigma-sqrt", torch.zeros(2), sigma))
    torch.testing.assert_close(loss, 0.5 * ((velocity - (eps - student)) ** 2).mean())


def test_weightings_are_those_of_the_release() -> None:
    draw = torch.tensor([0.0, 1.0])
    assert auxiliary_weighting("logit-normal", draw, draw).tolist() == pytest.approx([0.5, 0.731059])
    assert auxiliary_weighting("mode", draw, draw).tolist() == pytest.approx([1.0, 0.0])


# --- the stage


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A prior's file of ours at a tiny size, on the embedded VAE."""
    torch.manual_seed(0)
    transformer, text = build_sd3_transformer(NETWORK), ByteTextEncoder(**TEXT)
    for parameter in transformer.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    parts = nn.ModuleDict({"transformer": transformer, "text": text})
    path = tmp_path / "tiny-sd3.safetensors"
    config = {"kind": "prior", "family": "sd3", "transformer": NETWORK, "text": TEXT, "vae": "embedded"}
    write_weights(path, dict(parts.state_dict()), config, torch.float32)
    return path


def until(step: int, *losses: str) -> str:
    return f"[{{until: {step}, weights: {{{', '.join(f'{name}: 1.0' for name in losses)}}}}}]"


def tiny(base: Path, **changes: str) -> dict[str, str]:
    return {**TINY, "settings.base": str(base), **changes}


def stage_of(base: Path, **changes: str) -> Any:
    torch.manual_seed(0)
    return build_stage(load_recipe("mini-tsd-sr", tiny(base, **changes)))


def batch(caption: str = "") -> Batch:
    torch.manual_seed(1)
    return Batch(("a", "b"), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), (caption, caption), torch.zeros(2, 6))


def columns(run: Path) -> list[str]:
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file).fieldnames or [])


def test_two_steps_in_two_phases_make_a_student_that_restores(base: Path, drawn_pictures: Path, tmp_path: Path) -> None:
    phases = "[{until: 1, weights: {latent: 1.0, tsd: 1.0, auxiliary: 1.0}}, {until: 2, weights: {pixel: 1.0, gradient: 1.0, dasm: 1.0}}]"
    files = train("mini-tsd-sr", tmp_path / "run", tiny(base, phases=phases, **{"data.folder": str(drawn_pictures)}), cpu=True)
    assert {"latent", "tsd", "auxiliary", "pixel", "gradient", "dasm"} <= set(columns(tmp_path / "run"))
    assert [path.name for path in files] == ["mini-tsd-sr.safetensors", "vae.safetensors", "mini-tsd-sr.md"]
    generator = read_generator(files[0], LoadOptions())
    assert restore(generator, torch.rand(1, 20, 33, 3), 2.0, 0, Tiling(32, 8)).isfinite().all()


@torch.no_grad()
def test_the_whole_file_is_the_student_with_its_encoder(base: Path, tmp_path: Path) -> None:
    stage = stage_of(base)
    for factor in stage.student.parameters():
        nn.init.normal_(factor, std=0.1)
    low = batch().degraded
    noise = stage.encoding.noise_for(low)
    stage._tell_prompt()
    expected = stage.student(low, noise)
    files = stage.export(tmp_path / "export", "card")
    for fold in (True, False):
        generator = read_generator(files[0], LoadOptions(fold_constants=fold))
        found = generator.method.restore_latent(generator.prior.codec.encode(low, noise), None)
        assert (found - expected).abs().max() < 0.01 * expected.abs().max()
    plain = read_vae("embedded").state_dict()
    own = generator.prior.codec.vae.state_dict()
    changed = {name.split(".")[0] for name, tensor in own.items() if not torch.allclose(tensor, plain[name].half().float())}
    assert changed == {"encoder"}


def test_an_encoder_that_does_not_fit_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    stage = stage_of(base)
    path = stage.export(tmp_path / "export", "card")[0]
    tensors, config = read_weights(path)
    write_weights(path, {**tensors, "vae.encoder.conv_in.bias": torch.zeros(3), "vae.odd": torch.zeros(1)}, config)
    with pytest.raises(WeightsError, match=r"tensor odd is unknown; tensor encoder.conv_in.bias is \[3\]"):
        read_generator(path, LoadOptions())


@torch.no_grad()
def test_the_published_layout_loads_on_its_prior(base: Path, host: LocalHost, tmp_path: Path) -> None:
    """The prior as a person has it, a diffusers folder; ranks come from the metadata."""
    stage = stage_of(base, **{"settings.layout": "published", "settings.timestep": "1000"})
    for factor in stage.student.parameters():
        nn.init.normal_(factor, std=0.1)
    folder = host.folders.models / "diffusers" / "stable-diffusion-3-medium-diffusers"
    stage.base.denoiser.save_pretrained(folder / "transformer")
    stage.vae.vae.save_pretrained(folder / "vae")
    files = stage.export(host.folders.models / "kintsugi" / "tsd-sr", "card")
    assert {path.name for path in files} == {
        "transformer.safetensors", "vae.safetensors", "transformer_reg.safetensors", "prompt_embeds.safetensors",
        "pool_embeds.safetensors", "mini-tsd-sr.md",
    }  # fmt: skip
    generator = read_generator(files[0], LoadOptions())
    low = batch().degraded
    noise = stage.encoding.noise_for(low)
    expected = stage.student(low, noise)
    method = generator.method
    assert isinstance(method, TsdSr)
    torch.testing.assert_close(method.restore_latent(generator.prior.codec.encode(low, noise), None), expected, rtol=1e-3, atol=1e-3)


def test_the_published_layout_has_one_timestep(base: Path) -> None:
    with pytest.raises(RecipeError, match="the published layout has no place for a timestep of 300"):
        stage_of(base, **{"settings.layout": "published"})


def test_a_teacher_that_was_trained_is_distilled_from(base: Path, drawn_pictures: Path, tmp_path: Path) -> None:
    clean = {"phases": until(2, "denoising"), "frozen_precision": "'no'", "data.mix": "[]", "data.folder": str(drawn_pictures)}
    files = train("tsd-sr-teacher", tmp_path / "teacher", tiny(base, **clean, **{"settings.captions": "false"}), cpu=True)
    assert [path.name for path in files] == ["teacher.safetensors", "teacher.md"]
    stage, plain = stage_of(base, **{"settings.teacher": str(files[0])}), stage_of(base)
    prompt = PromptEmbedding(torch.zeros(2, 4, TEXT["width"]), torch.zeros(2, TEXT["pooled"]))
    latent, sigma = torch.randn(2, 16, 8, 8), torch.tensor([0.3, 0.7])
    told, untold = (sd3_velocity(network, latent, sigma, prompt) for network in (stage.teacher, stage.base.denoiser))
    assert not torch.equal(told, untold) and torch.equal(untold, sd3_velocity(plain.teacher, latent, sigma, prompt))


@pytest.mark.parametrize("loss", ["tsd", "dasm"])
def test_the_distillation_reaches_every_factor_of_the_student_and_nothing_else(base: Path, loss: str) -> None:
    stage = stage_of(base)
    for network in (*stage.frozen.values(), stage.vae, stage.auxiliary):
        network.requires_grad_(False)
    memory: dict[str, Tensor] = {}
    stage.losses("student", stage.student, batch(), frozenset({loss}), memory)[loss].backward()
    assert all(factor.grad is not None for factor in stage.student.parameters())
    assert any(factor.grad.any() for factor in stage.student.step.parameters())
    assert any(factor.grad.any() for factor in stage.student.encoder.parameters())
    assert all(parameter.grad is None for parameter in (*stage.method.parameters(), *stage.vae.parameters(), *stage.auxiliary.parameters()))
    assert not memory["restored"].requires_grad


def test_the_auxiliary_network_learns_with_and_without_the_students_turn(base: Path) -> None:
    stage, wanted = stage_of(base), frozenset({"auxiliary"})
    for network in (*stage.frozen.values(), stage.vae, stage.student):
        network.requires_grad_(False)
    for memory in ({}, {"restored": torch.randn(2, 16, 8, 8)}):
        stage.losses("auxiliary", stage.auxiliary, batch(), wanted, memory)["auxiliary"].backward()
        assert all(factor.grad is not None for factor in stage.auxiliary.parameters())
        stage.auxiliary.zero_grad()


def test_every_sample_has_noise_levels_of_its_own(base: Path) -> None:
    sigmas = stage_of(base)._trajectory(64, (1.0, 0.3, 0.3, 0.3))
    assert sigmas.shape == (64, 5) and len(sigmas[:, 0].unique()) > 32 and (sigmas.diff() < 0).all()
    assert sigmas[:, 0].max() <= stage_of(base).sigmas[50] and sigmas[:, 0].min() >= stage_of(base).sigmas[949]


def test_guidance_leads_away_from_the_null_prompt(base: Path) -> None:
    network = stage_of(base).base.denoiser
    torch.manual_seed(2)
    prompt, null = (PromptEmbedding(torch.randn(2, 4, TEXT["width"]), torch.randn(2, TEXT["pooled"])) for _ in range(2))
    latent, sigma = torch.randn(2, 16, 8, 8), torch.tensor([0.3, 0.7])
    told, untold = (sd3_velocity(network, latent, sigma, one) for one in (prompt, null))
    guided = Guidance(prompt, null, 7.5).of(network)(latent, sigma)
    torch.testing.assert_close(guided, untold + 7.5 * (told - untold), rtol=1e-4, atol=1e-5)
    assert torch.equal(Guidance(prompt, null, 1.0).of(network)(latent, sigma), told)


def test_captions_are_told_to_the_score_networks_alone(base: Path) -> None:
    told, untold = (stage_of(base, **{"settings.captions": value}) for value in ("true", "false"))
    assert not torch.equal(told._captions(batch("a dog")).tokens, told._captions(batch()).tokens)
    assert torch.equal(untold._captions(batch("a dog")).tokens, told._captions(batch()).tokens)


def test_lpips_without_weights_is_refused_with_the_way_to_get_them(base: Path) -> None:
    with pytest.raises(RecipeError, match="the loss `lpips` has no weights"):
        (stage := stage_of(base)).losses("student", stage.student, batch(), frozenset({"lpips"}), {})


@pytest.mark.parametrize(
    ("recipe", "counts"), [("tsd-sr", {"student": 95178432, "auxiliary": 33030144}), ("tsd-sr-teacher", {"teacher": 89268224})]
)
def test_full_size_recipes_train_as_many_parameters_as_the_release(recipe: str, counts: dict[str, int]) -> None:
    with torch.device("meta"):
        stage = build_stage(load_recipe(recipe))
    assert {turn: sum(factor.numel() for factor in network.parameters()) for turn, network in stage.networks.items()} == counts


def test_targets_are_those_of_the_manifest() -> None:
    lora = json.loads((GOLDEN / "manifest.json").read_text())["lora"]
    assert set(AUXILIARY_TARGETS) == set(lora["reg"]["target_modules"])
    assert set(TRANSFORMER_TARGETS) == set(lora["student_transformer"]["target_modules"])
    assert set(VAE_TARGETS) | {"quant_conv"} == set(lora["student_vae"]["target_modules"])
