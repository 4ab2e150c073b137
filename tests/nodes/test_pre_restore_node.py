"""The pre-restorer as a graph uses it: before InstaRevive, with what comes along."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.nodes.one_step import KintsugiLoadGenerator, KintsugiRestoreOneStep
from kintsugi.nodes.pre_restore import KintsugiPreRestore


def test_a_picture_is_pre_restored_and_then_restored_by_instarevive_with_embedded_weights() -> None:
    image = torch.rand(2, 30, 44, 3)
    (coarse,) = KintsugiPreRestore().restore(image, "auto", "auto", 512)
    assert coarse.shape == image.shape and not torch.equal(coarse, image)
    generator, _ = KintsugiLoadGenerator().load("instarevive", "auto", "auto")
    (restored,) = KintsugiRestoreOneStep().restore(generator, coarse, 1.0, 0, 512, 64, "none")
    assert restored.shape == image.shape and restored.min() >= 0 and restored.max() <= 1


def test_bfloat16_gives_the_same_picture_within_its_precision() -> None:
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), (48, 48), mode="bicubic").clamp(0, 1).movedim(1, -1)
    exact, rounded = (KintsugiPreRestore().restore(image, "embedded", dtype, 512)[0] for dtype in ("fp32", "bf16"))
    assert ((exact - rounded).abs().mean() * 255).item() <= 1.0


def test_weights_that_are_not_there_are_refused_with_the_folders_searched(host: LocalHost) -> None:
    with pytest.raises(WeightsError, match=r"no weights named 'swinir/none\.safetensors'.*kintsugi"):
        KintsugiPreRestore().restore(torch.rand(1, 8, 8, 3), "swinir/none.safetensors", "auto", 512)
