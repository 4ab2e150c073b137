"""InstaRevive's stage on a tiny prior: whose turn it is, what dynamic control does, and that what it writes restores."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import RecipeError, WeightsError
from kintsugi.core.methods.instarevive import PHOTO, InstaRevive
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.weights.gendr import read_generator as read_gendr
from kintsugi.core.weights.instarevive import read_generator
from kintsugi.core.weights.options import LoadOptions
from kintsugi.training.losses import denoising_loss, latent_mse, pixel_loss
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.stages.instarevive import InstaReviveSettings, InstaReviveStage
from pydantic import ValidationError
from tiny_pixart import batch_of, losses, write_prior, write_unet_prior
from torch import nn

FULL = ("bfr", "bsr", "cartoon", "derain", "identity", "inpainting", "low-light", "salt-and-pepper")


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prior(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


def stage_of(prior: Path, **settings: object) -> InstaReviveStage:
    torch.manual_seed(0)
    return InstaReviveStage(InstaReviveSettings(base=str(prior), timestep=200, **settings))  # type: ignore[arg-type]


def gradient_norm(network: nn.Module) -> float:
    return sum(float(parameter.grad.norm()) for parameter in network.parameters() if parameter.grad is not None)


def test_regression_stands_alone_where_the_score_is_not_wanted(prior: Path) -> None:
    stage, batch = stage_of(prior), batch_of()
    found = losses(stage, "generator", {"latent", "pixel", "gradient"})
    restored = stage._restored(stage.generator, batch)
    assert set(found) == {"latent", "pixel", "gradient"}
    assert torch.equal(found["latent"], latent_mse(restored, stage.vae.encode(batch.high_quality)))
    assert torch.equal(found["pixel"], pixel_loss(stage.vae.decode(restored), batch.high_quality))


def test_dynamic_control_shares_between_regression_and_score_by_alpha(prior: Path) -> None:
    stage, batch = stage_of(prior), batch_of()
    restored, clean = stage._restored(stage.generator, batch).detach(), stage.vae.encode(batch.high_quality)
    alone = losses(stage, "generator", {"latent"})["latent"]
    t_max, alpha = stage._control(clean + 0.01 * torch.randn_like(clean), clean)
    assert 0 < t_max < 10 and float(alpha) == pytest.approx(int(t_max) / 999)
    t_max, alpha = stage._control(restored, clean)
    shared = losses(stage, "generator", {"latent", "score"})
    assert float(shared["latent"].detach()) == pytest.approx(float(alpha) * float(alone.detach()), rel=1e-5)
    fixed = stage_of(prior, dynamic=False, alpha=0.25)
    assert fixed._control(clean, clean)[0] == 999
    assert float(losses(fixed, "generator", {"latent", "score"})["latent"].detach()) == pytest.approx(
        0.25 * float(alone.detach()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("setting", "value"), [("weighting", "equation 5"), ("weighting", "score"), ("scaling", "sum"), ("distance", "literal")]
)
def test_every_form_of_the_score_reaches_the_generator_alone(prior: Path, setting: str, value: str) -> None:
    # The fake network is trained on what it has never seen, so that its score differs from the real one's.
    stage = stage_of(prior, dynamic=False, **{setting: value})
    with torch.no_grad():
        for parameter in stage.fake.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    score = losses(stage, "generator", {"score"})["score"]
    score.backward()
    assert float(score.detach()) > 0 and gradient_norm(stage.generator) > 0
    assert gradient_norm(stage.real) == gradient_norm(stage.fake) == 0


def test_the_score_is_nothing_while_both_networks_are_one_and_there_is_no_guidance(prior: Path) -> None:
    stage = stage_of(prior, guidance=1.0)
    assert float(losses(stage, "generator", {"score"})["score"].detach()) < 1e-8


def test_the_fake_network_learns_the_noise_in_what_the_generator_made(prior: Path) -> None:
    stage, memory = stage_of(prior), {}
    stage.losses("generator", stage.generator, batch_of(), frozenset({"latent"}), memory)
    assert not memory["restored"].requires_grad
    found = losses(stage, "fake", {"denoising"}, restored=memory["restored"])["denoising"]
    torch.manual_seed(2)
    t, noise = torch.randint(1000, (2,)), torch.randn_like(memory["restored"])
    x_t, prompt = stage.schedule.add_noise(memory["restored"], noise, t), stage._prompt(batch_of())
    said = stage.fake(x_t, t, prompt)
    assert torch.equal(found, denoising_loss(said, noise))
    assert torch.isfinite(losses(stage, "fake", {"denoising"})["denoising"])


def test_pictures_with_a_caption_are_told_their_own(prior: Path) -> None:
    batch = batch_of(captions=("a red house", ""))
    assert stage_of(prior)._texts(batch) == [PHOTO, PHOTO]
    assert stage_of(prior, captions=True)._texts(batch) == ["a red house", PHOTO]
    assert stage_of(prior, task="none")._texts(batch) == ["", ""]


def test_noise_enters_in_the_papers_mode_and_is_ignored_at_the_start(prior: Path) -> None:
    published, paper = stage_of(prior), stage_of(prior, input="paper")
    assert torch.equal(published._restored(published.generator, batch_of()), paper._restored(paper.generator, batch_of()))
    losses(paper, "generator", {"latent"})["latent"].backward()
    assert paper.generator.concat_conv is not None and paper.generator.concat_conv.weight.grad is not None
    with pytest.raises(ValidationError, match="takes noise"):
        InstaReviveSettings(family="sd21-vae16", input="paper")


def test_the_coarse_restorer_goes_before_the_encoder(prior: Path) -> None:
    stage, batch = stage_of(prior, coarse="embedded"), batch_of()
    assert stage.coarse is not None
    coarse = stage.coarse(batch.degraded)
    assert coarse.shape == batch.degraded.shape and not torch.equal(coarse, batch.degraded)
    assert set(stage.output(batch)) == {"low_quality", "coarse", "restored", "high_quality"}
    same = replace(batch, low_quality=coarse)
    assert torch.equal(stage_of(prior)._restored(stage.generator, same), stage._restored(stage.generator, batch))


def test_lpips_without_weights_is_explained(prior: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.lpips"):
        losses(stage_of(prior), "generator", {"lpips"})


def overrides(pictures: Path, prior: Path, **more: str) -> dict[str, str]:
    phases = "[{until: 1, weights: {latent: 1.0}}, {until: 2, weights: {pixel: 1.0, score: 0.5, denoising: 1.0}}]"
    return {
        "steps": "2", "batch": "2", "precision": "'no'", "checkpoint_every": "2", "validate_every": "2", "phases": phases,
        "data": f"{{source: folder, folder: '{pictures}', crop: 32, degradation: mild, workers: 0}}", "settings.base": str(prior),
        # Untrained it is so far from the target that alpha is 1.
        "settings.kappa": "0.1", **more,
    }  # fmt: skip


@pytest.mark.parametrize("entering", ["published", "paper"])
def test_what_a_run_exports_restores_as_the_generator_did(drawn_pictures: Path, prior: Path, tmp_path: Path, entering: str) -> None:
    files = train("mini-instarevive", tmp_path / "run", overrides(drawn_pictures, prior, **{"settings.input": entering}), cpu=True)
    assert [path.name for path in files] == ["mini-instarevive.safetensors", "mini-instarevive.md", "vae.safetensors"]
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["latent"] and not first["score"] and not first["denoising"]
    assert float(second["score"]) > 0 and float(second["denoising"]) > 0 and float(second["fake loss"]) > 0
    generator = read_generator(files[0], LoadOptions())
    assert isinstance(generator.method, InstaRevive) and generator.method.constants.timestep == 200
    assert generator.method.largest_side == 40 and generator.bounded(Tiling()) == 96
    restored = restore(generator, torch.rand(1, 70, 90, 3), scale=2, seed=0, tiling=Tiling(96, 32))
    assert restored.shape == (1, 140, 180, 3)


def test_the_exported_student_says_what_the_generator_says(drawn_pictures: Path, prior: Path, tmp_path: Path) -> None:
    stage = stage_of(prior, name="student", largest_side=8)
    weights = stage.export(tmp_path, "card")[0]
    method, latent = read_generator(weights, LoadOptions(fold_constants=False)).method, stage.vae.encode(batch_of().degraded)
    expected = stage._restored(stage.generator, batch_of())
    assert (method.restore_latent(latent, None) - expected).abs().max() <= 2e-3 * expected.abs().max()


def test_a_fine_tune_starts_from_a_student_with_or_without_its_convolution(prior: Path, tmp_path: Path) -> None:
    first = stage_of(prior, name="first")
    with torch.no_grad():
        for parameter in first.generator.parameters():
            parameter.mul_(1.5)
    weights = str(first.export(tmp_path, "card")[0])
    for entering in ("published", "paper"):
        told = stage_of(prior, start=weights, input=entering)
        expected = dict(first.generator.network.state_dict())
        found = dict(told.generator.network.state_dict())
        assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in expected)
        assert all(tensor.dtype == torch.float32 for tensor in found.values())
    noisy = stage_of(prior, name="noisy", input="paper").export(tmp_path, "card")[0]
    assert stage_of(prior, start=str(noisy), input="paper").generator.concat_conv is not None
    with pytest.raises(WeightsError, match=r"concat_conv\.weight is unknown"):
        stage_of(prior, start=str(noisy))


def test_a_unet_student_is_a_file_of_gendrs(tmp_path: Path) -> None:

    stage = stage_of(write_unet_prior(tmp_path / "unet.safetensors"), family="sd21-vae16", name="unet")
    weights = stage.export(tmp_path / "export", "card")[0]
    method, latent = read_gendr(weights, LoadOptions()).method, stage.vae.encode(batch_of().degraded)
    expected = stage._restored(stage.generator, batch_of())
    assert (method.restore_latent(latent, None) - expected).abs().max() <= 5e-3 * expected.abs().max()


@pytest.mark.parametrize("task", FULL)
def test_a_full_size_recipe_trains_as_many_parameters_as_published(task: str) -> None:
    recipe = load_recipe(f"instarevive-{task}")
    with torch.device("meta"):
        stage = build_stage(recipe)
    counts = {turn: sum(parameter.numel() for parameter in network.parameters()) for turn, network in stage.networks.items()}
    assert counts == {"generator": 610_856_096, "fake": 610_856_096}
    assert recipe.batch * recipe.accumulate * recipe.processes == 32
    assert ("identity" in stage.frozen) == (task == "identity")


def test_the_unet_recipe_is_of_the_size_of_stable_diffusions() -> None:
    with torch.device("meta"):
        stage = build_stage(load_recipe("instarevive-unet"))
    assert sum(parameter.numel() for parameter in stage.networks["generator"].parameters()) == 865_979_856
