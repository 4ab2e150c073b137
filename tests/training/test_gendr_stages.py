"""GenDR's stages at a tiny size: a base, and its distillation by every loss that the paper compares."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kintsugi.core.errors import RecipeError
from kintsugi.core.methods.gendr import OneStepConstants, one_step
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.models.mini import build_unet
from kintsugi.core.weights.files import read_weights
from kintsugi.core.weights.gendr import read_generator
from kintsugi.core.weights.options import LoadOptions
from kintsugi.core.weights.priors import read_prior
from kintsugi.training.data import Batch
from kintsugi.training.gendr_networks import constants_of_v
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from PIL import Image

UNET = (
    "{sample_size: 8, in_channels: 16, out_channels: 16, block_out_channels: [16, 32], layers_per_block: 1, norm_num_groups: 8,"
    " down_block_types: [CrossAttnDownBlock2D, DownBlock2D], up_block_types: [UpBlock2D, CrossAttnUpBlock2D],"
    " cross_attention_dim: 12, attention_head_dim: [2, 4], use_linear_projection: true}"
)
TINY = {
    "steps": "2", "batch": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'", "data.source": "folder",
    "data.crop": "32", "data.workers": "0", "data.bank": "null",
}  # fmt: skip
TINY_BASE = {**TINY, "settings.network": UNET, "settings.text": "{tokens: 4, width: 12, pooled: 8}", "settings.projector_width": "16"}
SMALL = {
    "settings.generator": "base", "settings.lora_rank": "2", "settings.lora_alpha": "4", "settings.head_width": "8",
    "settings.head_groups": "4", "settings.projector_width": "16",
}  # fmt: skip
VARIANTS = {
    "VSD": ("vsd", "fake_noise"),
    "SiD": ("sid", "fake_noise"),
    "CiD": ("cid", "fake", "real"),
    "CiDA": ("cid", "adversarial", "repa", "fake", "real", "discriminator"),
    "regression": ("latent", "pixel", "gradient"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((48, 40)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def base(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior of the embedded VAE, as the stage exports it."""
    run = tmp_path_factory.mktemp("base")
    return train("mini-gendr-base", run, {**TINY_BASE, **until(2, "denoising", "repa"), "data.folder": str(pictures)}, cpu=True)[0]


def until(step: int, *losses: str) -> dict[str, str]:
    return {"phases": f"[{{until: {step}, weights: {{{', '.join(f'{name}: 1.0' for name in losses)}}}}}]"}


def distilling(pictures: Path, base: Path, *losses: str) -> dict[str, str]:
    return {**TINY, **SMALL, **until(2, *losses), "data.folder": str(pictures), "settings.base": str(base)}


def columns(run: Path) -> list[str]:
    with (run / "log.csv").open(newline="") as file:
        return csv.DictReader(file).fieldnames or []  # type: ignore[return-value]


def stage_of(settings: dict[str, str]) -> Any:
    torch.manual_seed(0)
    return build_stage(load_recipe("mini-gendr", settings))


def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(("a", "b"), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), ("", ""), torch.zeros(2, 6))


def test_the_base_is_exported_as_a_prior_that_loads(base: Path) -> None:
    prior = read_prior(base, torch.float32, "none")
    assert prior.family == "sd21-vae16" and prior.denoiser is not None
    assert prior.denoiser().config["cross_attention_dim"] == 12  # type: ignore[index]
    assert prior.encode_prompt("a photo").tokens.shape == (1, 4, 12)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_loss_that_the_paper_compares_trains_and_exports_a_restorer(name: str, pictures: Path, base: Path, tmp_path: Path) -> None:
    recipe = distilling(pictures, base, *VARIANTS[name])
    files = train("mini-gendr", tmp_path, recipe, cpu=True)
    assert set(VARIANTS[name]) <= set(columns(tmp_path))
    generator = read_generator(files[0], LoadOptions())
    assert restore(generator, torch.rand(1, 20, 33, 3), scale=1, seed=0, tiling=Tiling(32, 8)).isfinite().all()


def test_the_published_layout_has_every_file_of_the_manifest_and_loads(pictures: Path, base: Path, tmp_path: Path) -> None:
    recipe = {**distilling(pictures, base, *VARIANTS["CiDA"]), "settings.layout": "published", "settings.name": "generator"}
    train("mini-gendr", tmp_path, recipe, cpu=True)
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"generator", "prompts", "score_real_lora", "score_fake_lora", "repa_projector", "disc_heads"} == {
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    }
    prompts, _ = read_weights(tmp_path / "export" / "prompts.safetensors")
    assert {name: list(tensor.shape) for name, tensor in prompts.items()} == {name: [1, 4, 12] for name in ("positive", "negative", "null")}
    heads, _ = read_weights(tmp_path / "export" / "disc_heads.safetensors")
    assert list(heads["down_blocks.0.conv1.weight"].shape) == [8, 16, 3, 3] and list(heads["mid_block.conv2.weight"].shape) == [1, 8, 1, 1]
    generator = read_generator(tmp_path / "export" / "generator.safetensors", LoadOptions())
    assert restore(generator, torch.rand(1, 16, 16, 3), scale=1, seed=0, tiling=Tiling()).isfinite().all()


def test_a_generator_that_begins_as_the_embedded_one_keeps_its_prompt_and_constants(pictures: Path, base: Path) -> None:
    stage = stage_of({**distilling(pictures, base, "vsd"), "settings.generator": "embedded"})
    assert stage.start.constants == OneStepConstants(1.0, 1.0, 500) and stage.start.border == 16
    assert stage.prompt.shape == (1, 8, 32) and stage.scores.positive.shape == (1, 4, 12)


def test_a_generator_that_begins_as_the_base_shares_no_weights_with_it(pictures: Path, base: Path) -> None:
    stage = stage_of(distilling(pictures, base, "vsd"))
    own, other = dict(stage.generator.unet.named_parameters()), dict(stage.base.named_parameters())
    assert all(torch.equal(own[name], other[name]) and own[name] is not other[name] for name in other)


@pytest.mark.parametrize("turn", ["generator", "fake", "real", "discriminator"])
def test_a_turn_gives_gradients_to_its_own_network_alone(turn: str, pictures: Path, base: Path) -> None:
    stage = stage_of(distilling(pictures, base, "vsd"))
    wanted = {"generator": {"cid", "adversarial"}, "fake": {"fake"}, "real": {"real"}, "discriminator": {"discriminator"}}[turn]
    for module in [*stage.frozen.values(), *stage.networks.values()]:
        module.requires_grad_(False)
    stage.networks[turn].requires_grad_(True)
    found = stage.losses(turn, stage.networks[turn], batch(), frozenset(wanted), {})
    sum(found.values()).backward()
    assert found.keys() == wanted
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in stage.networks[turn].parameters())
    assert all(parameter.grad is None for other, network in stage.networks.items() if other != turn for parameter in network.parameters())


def test_turns_share_the_timestep_and_the_noise_of_a_batch(pictures: Path, base: Path) -> None:
    stage, memory = stage_of(distilling(pictures, base, "vsd")), dict[str, torch.Tensor]()
    for turn, loss in (("generator", "cid"), ("fake", "fake"), ("real", "real"), ("discriminator", "discriminator")):
        before = {name: tensor.clone() for name, tensor in memory.items()}
        stage.losses(turn, stage.networks[turn], batch(), frozenset({loss}), memory)
        assert all(torch.equal(memory[name], tensor) for name, tensor in before.items())
    assert memory.keys() == {"restored", "t", "noise", "noised_clean"} and not any(tensor.requires_grad for tensor in memory.values())


def test_score_networks_begin_as_the_base_and_vsd_as_no_gradient(pictures: Path, base: Path) -> None:
    stage = stage_of(distilling(pictures, base, "vsd"))
    found = stage.losses("generator", stage.generator, batch(), frozenset({"vsd", "sid", "cid"}), {})
    assert all(float(loss.detach()) == 0 for loss in found.values())


def test_a_represented_loss_without_a_teacher_is_refused(pictures: Path, base: Path) -> None:
    stage = stage_of({**distilling(pictures, base, "repa"), "settings.teacher": "null"})
    with pytest.raises(RecipeError, match="needs a teacher"):
        stage.losses("generator", stage.generator, batch(), frozenset({"repa"}), {})


def test_a_generator_that_tells_v_restores_as_one_that_tells_the_noise(pictures: Path, base: Path) -> None:
    stage = stage_of(distilling(pictures, base, "vsd"))
    constants, latent, prompt = OneStepConstants(), torch.randn(2, 16, 8, 8), torch.randn(1, 4, 12)
    unet: Any = build_unet(dict(stage.base.config))
    t = torch.tensor([constants.timestep])
    v = unet(latent, t, prompt.expand(2, -1, -1)).sample
    expected = (latent - constants.beta * stage.schedule.eps(latent, v, t, "v")) / constants.alpha
    torch.testing.assert_close(one_step(unet, latent, prompt, constants_of_v(constants, stage.schedule)), expected, rtol=1e-4, atol=1e-5)
