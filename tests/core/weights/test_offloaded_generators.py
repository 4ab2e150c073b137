"""Every one-step method restores the same under every offload."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from kintsugi.core.methods.one_step import Tiling, restore
from kintsugi.core.models.offload import Offload
from kintsugi.core.weights.generators import METHODS, load_generator
from kintsugi.core.weights.options import LoadOptions
from torch import Tensor


def restored(method: str, offload: Offload) -> Tensor:
    picture = torch.rand(1, 24, 40, 3, generator=torch.Generator().manual_seed(0))
    return restore(load_generator(method, "embedded", "fp32", LoadOptions(offload=offload)), picture, 1.0, 0, Tiling())


plain = cache(lambda method: restored(method, "none"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offload", ["model", "group"])
def test_weights_that_wait_in_memory_change_nothing(method: str, offload: Offload) -> None:
    assert torch.equal(restored(method, offload), plain(method))


@pytest.mark.parametrize("method", METHODS)
def test_eight_bits_change_little(method: str) -> None:
    """Measured: 0.0015 of the brightness range for GenDR."""
    assert (restored(method, "layerwise fp8") - plain(method)).abs().max() <= 0.01
