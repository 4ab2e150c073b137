"""The degradation nodes: what they promise on their sockets, and that they call the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from kintsugi.core.degradation.pipeline import degrade, replay
from kintsugi.core.degradation.presets import PRESETS
from kintsugi.nodes.degradation import (
    NODES,
    KintsugiDegrade,
    KintsugiDegradeBlur,
    KintsugiDegradeCompress,
    KintsugiDegradeNoise,
    KintsugiDegradeResize,
)
from torch import Tensor


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(3))


def defaults(node: type, **changes: Any) -> dict[str, Any]:
    inputs = node.INPUT_TYPES()["required"]
    return {name: options["default"] for name, (_, options) in inputs.items() if "default" in options} | changes


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_a_node_runs_on_its_defaults_and_explains_every_input(node: type, image: Tensor) -> None:
    inputs = node.INPUT_TYPES()["required"]
    assert all(options["tooltip"] for _, options in inputs.values())
    assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    assert node.DISPLAY_NAME.startswith("Degrade") and node.CATEGORY == "image/restoration/degrade" and node.DESCRIPTION
    first, *_ = getattr(node(), node.FUNCTION)(image=image, **defaults(node))
    assert first.dtype == torch.float32 and first.shape[0] == 2 and first.shape[3] == 3 and 0 <= first.min() <= first.max() <= 1


def test_degrade_gives_the_models_picture_and_replayable_parameters(image: Tensor) -> None:
    degraded, parameters = KintsugiDegrade().degrade(image, "real-esrgan", 2, 9, '{"noise_1": {"sigma": [5, 5]}}')
    planes = image.permute(0, 3, 1, 2)
    expected = degrade(planes, "real-esrgan", 2, 9, {"noise_1": {"sigma": [5, 5]}}).low_quality
    assert torch.equal(degraded.permute(0, 3, 1, 2), expected)
    assert torch.equal(replay(planes, json.loads(parameters)), expected)


def test_degrade_offers_every_preset() -> None:
    assert KintsugiDegrade.INPUT_TYPES()["required"]["preset"][0] == list(PRESETS)


@pytest.mark.parametrize("kernel", KintsugiDegradeBlur.INPUT_TYPES()["required"]["kernel"][0])
def test_blur_keeps_the_mean_and_lowers_the_contrast(kernel: str, image: Tensor) -> None:
    (blurred,) = KintsugiDegradeBlur().blur(image, **defaults(KintsugiDegradeBlur, kernel=kernel, cutoff=1.0))
    assert blurred.std() < 0.6 * image.std() and blurred.mean().item() == pytest.approx(image.mean().item(), abs=0.02)


@pytest.mark.parametrize("mode", KintsugiDegradeResize.INPUT_TYPES()["required"]["mode"][0])
def test_resize_gives_the_asked_size_or_the_old_one(mode: str, image: Tensor) -> None:
    assert KintsugiDegradeResize().resize(image, 0.5, mode, False)[0].shape == (2, 12, 16, 3)
    assert KintsugiDegradeResize().resize(image, 0.5, mode, True)[0].shape == image.shape


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "salt-and-pepper"])
def test_noise_of_picture_i_is_that_of_seed_plus_i(noise: str, image: Tensor) -> None:
    node = KintsugiDegradeNoise()
    (batch,) = node.add_noise(image, **defaults(KintsugiDegradeNoise, noise=noise, seed=6))
    (alone,) = node.add_noise(image[1:], **defaults(KintsugiDegradeNoise, noise=noise, seed=7))
    assert torch.equal(batch[1:], alone) and not torch.equal(batch, image)


@pytest.mark.parametrize("codec", ["jpeg", "webp", "simulated-jpeg"])
@pytest.mark.parametrize("quality", [1, 100])
def test_every_codec_works_at_both_ends_of_the_quality(codec: str, quality: int, image: Tensor) -> None:
    (compressed,) = KintsugiDegradeCompress().compress(image, codec, quality, "4:2:0")
    assert compressed.shape == image.shape and compressed.isfinite().all()
