"""The stage of the coarse restorer: where it starts, what it exports, and settings that cannot work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import RecipeError
from kintsugi.core.weights.swinir import read_swinir
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from kintsugi.training.stages import build_stage
from kintsugi.training.stages.swinir_restorer import SwinirRestorerSettings, SwinirRestorerStage
from PIL import Image
from torch.nn import functional as F

TINY = {"width": 12, "depths": (2,), "features": 6, "window": 4, "grid": 8}


@pytest.mark.parametrize(("scale", "width"), [(2, 12), (4, 48)])
def test_training_starts_from_the_interpolated_mean_of_every_block(scale: int, width: int) -> None:
    torch.manual_seed(0)
    network = SwinirRestorerStage(SwinirRestorerSettings(**{**TINY, "scale": scale, "width": width})).network
    picture = torch.rand(1, 3, 32, 48)
    expected = picture_of_means(picture, scale)
    assert (network(picture) - expected)[..., scale:-scale, scale:-scale].abs().max() < 1e-5


def picture_of_means(picture: torch.Tensor, scale: int) -> torch.Tensor:
    means = F.avg_pool2d(picture, scale)
    for _ in range(scale.bit_length() - 1):
        means = F.interpolate(means, scale_factor=2, mode="bilinear")
    return means


def test_what_training_exports_is_read_as_the_network_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(folder / "a.png")
    overrides = {
        "steps": "2", "batch": "2", "checkpoint_every": "2", "validate_every": "2", "precision": "'no'",
        "data.source": "folder", "data.folder": str(folder), "data.crop": "32", "data.workers": "0",
        "phases": "[{until: 1, weights: {pixel: 1.0}}, {until: 2, weights: {square: 1.0}}]",
        "settings": "{width: 12, depths: [2], features: 6, window: 4, grid: 8}",
    }  # fmt: skip
    weights, card = train("mini-swinir", tmp_path / "run", overrides, cpu=True)
    assert card.read_text().startswith("# swinir-restorer")
    restorer = read_swinir(weights)
    network = restorer.network
    assert (network.config.sf, network.config.num_feat, network.config.multiple, restorer.border) == (2, 6, 8, 8)
    assert network(torch.rand(1, 3, 16, 24)).shape == (1, 3, 16, 24)


@pytest.mark.parametrize(("settings", "fault"), [("{scale: 4}", "expected at least 48"), ("{features: 5}", "features")])
def test_too_narrow_a_network_is_refused(settings: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        build_stage(load_recipe("mini-swinir", {"settings": settings.replace("}", ", width: 12}")}))
