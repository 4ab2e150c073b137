"""Priors of every family at the smallest size: trained for two steps, exported, and read again as a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from kintsugi.core.errors import RecipeError
from kintsugi.core.weights.files import write_weights
from kintsugi.training.bases import base_parts
from kintsugi.training.data import Batch
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage

TINY_VAE = "{channels: [16, 48, 48], latent_channels: 16, norm_groups: 4}"
SMALLER: dict[str, dict[str, Any]] = {
    "mini-sd3-prior": {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 1, "caption_projection_dim": 8},
    "mini-pixart-prior": {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 1, "cross_attention_dim": 8},
    "mini-sdxl-prior": {"block_out_channels": [8, 8, 8, 8]},
    "mini-flux-prior": {"num_single_layers": 1, "num_attention_heads": 1},
}


def overrides(recipe: str, data: Path) -> dict[str, str]:
    network = {**load_recipe(recipe).settings["network"], **SMALLER[recipe]}
    return {
        "steps": "2", "batch": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'", "data.source": "folder",
        "data.folder": str(data), "data.crop": "64", "data.workers": "0", "data.bank": "3", "settings.network": yaml.safe_dump(network),
    }  # fmt: skip


@pytest.mark.parametrize("recipe", SMALLER)
def test_a_prior_is_trained_exported_and_read_as_a_base(
    recipe: str, drawn_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    weights, card = train(recipe, tmp_path / "run", overrides(recipe, drawn_pictures), cpu=True)
    family = load_recipe(recipe).settings["family"]
    base = base_parts(family, str(weights))
    assert base.name == family
    assert card.read_text(encoding="utf-8").startswith(f"# mini-{recipe.removeprefix('mini-').removesuffix('-prior')}")
    prompt = base.prompts("a prompt") if base.prompts else None
    assert prompt is not None and prompt.tokens.shape == (1, 16, 32)


def test_the_velocity_of_a_flow_and_the_noise_of_a_table_are_what_a_prior_learns() -> None:
    """A network that answers zero has the mean square of its target for a loss."""
    torch.manual_seed(0)
    clean = 3 * torch.randn(4, 16, 8, 8)
    batch = Batch(("",) * 4, torch.rand(4, 3, 32, 32), None, ("",) * 4, torch.zeros(4, 6), clean)
    for recipe, expected in (("mini-sd3-prior", 10.0), ("mini-pixart-prior", 1.0)):
        network = {**load_recipe(recipe).settings["network"], **SMALLER[recipe]}
        stage = build_stage(load_recipe(recipe, {"settings.network": yaml.safe_dump(network)}))
        last = stage.networks["prior"].get_submodule("proj_out")
        for parameter in last.parameters():
            torch.nn.init.zeros_(parameter)
        loss = stage.losses("prior", stage.networks["prior"], batch, frozenset({"denoising"}), {})["denoising"]
        assert abs(float(loss.detach()) - expected) < 0.1 * expected


def test_a_base_of_another_family_is_refused(drawn_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    weights, _ = train("mini-sd3-prior", tmp_path / "run", overrides("mini-sd3-prior", drawn_pictures), cpu=True)
    with pytest.raises(RecipeError, match="expected flux"):
        base_parts("flux", str(weights))


def test_a_file_that_is_no_prior_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "unet.safetensors", {"conv_in.weight": torch.zeros(1)}, {})
    with pytest.raises(RecipeError, match="no prior"):
        base_parts("sd21-vae16", str(tmp_path / "unet.safetensors"))


def test_a_dry_run_builds_the_published_size_without_weights() -> None:
    with torch.device("meta"):
        base = base_parts("sd3", "auto")
    assert sum(parameter.numel() for parameter in base.denoiser.parameters()) == 2_028_328_000
    assert next(base.denoiser.parameters()).is_meta
