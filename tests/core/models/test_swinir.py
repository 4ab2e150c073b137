"""The coarse restorer's network: published names and numbers, windows that keep apart what the picture keeps apart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import BadValueError
from kintsugi.core.models.swin import SwinBlock, grid_of_windows, offset_index, shift_mask, windows_of_grid
from kintsugi.core.models.swinir import SwinIR, SwinIRConfig, derived_shapes
from kintsugi.core.weights.configs import shipped_config
from safetensors.torch import load_file

SIDECAR = json.loads((GOLDEN / "instarevive" / "swinir.json").read_text())
TINY = SwinIRConfig(**SIDECAR["swinir_config"])


def test_the_full_size_has_exactly_the_tensors_of_the_published_files() -> None:
    published = json.loads((GOLDEN / "instarevive" / "manifest.json").read_text())["files"]["general_swinir_v1.ckpt"]
    config = SwinIRConfig(**shipped_config("swinir"))
    with torch.device("meta"):
        network = SwinIR(config)
    learned = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {**learned, **derived_shapes(config)} == published["tensors"]
    assert sorted(derived_shapes(config)) == sorted(published["buffers"])
    assert sum(parameter.numel() for parameter in network.parameters()) == published["parameters"]
    assert shipped_config("swinir") == published["swinir_config"]


def test_index_and_mask_are_those_that_published_files_store() -> None:
    stored = load_file(GOLDEN / "instarevive" / "swinir.safetensors")
    block = "w.swinir.layers.0.residual_group.blocks.1"
    assert torch.equal(stored[f"{block}.attn.relative_position_index"], offset_index(TINY.window))
    assert torch.equal(stored[f"{block}.attn_mask"], shift_mask(TINY.img_size, TINY.img_size, TINY.window, TINY.shift))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (16, 4)])
def test_windows_come_back_as_the_grid_they_were_cut_from(height: int, width: int) -> None:
    grid = torch.randn(2, height, width, 3)
    windows = windows_of_grid(grid, 4)
    assert windows.shape == (2, height * width // 16, 16, 3)
    assert torch.equal(windows[0, -1, -1], grid[0, -1, -1])
    assert torch.equal(grid_of_windows(windows, grid.shape, 4), grid)


@torch.inference_mode()
def test_shifted_windows_do_not_see_across_the_border_of_the_picture() -> None:
    torch.manual_seed(0)
    block = SwinBlock(8, heads=2, window=4, shift=2, mlp_ratio=2)
    features = torch.randn(1, 8, 12, 8)
    changed = features.clone()
    changed[:, -2:] += 1
    mask = shift_mask(8, 12, 4, 2)
    difference = (block(changed, mask) - block(features, mask)).abs().amax(dim=(0, 2, 3))
    assert difference[:2].max() < 1e-6 and difference[-2:].min() > 1e-3


def test_a_network_trained_on_a_single_window_never_shifts_it() -> None:
    single = replace(TINY, img_size=3)
    assert (single.window, single.shift, single.multiple) == (3, 0, 24)
    assert not any(name.endswith("attn_mask") for name in derived_shapes(single))
    assert SwinIR(single)(torch.rand(1, 3, 24, 48)).shape == (1, 3, 24, 48)


def test_sides_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(BadValueError, match="48 x 32 pixels are no multiples of 32"):
        SwinIR(TINY)(torch.rand(1, 3, 32, 48))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"upsampler": "pixelshuffle"}, "upsampler is 'pixelshuffle', expected 'nearest[+]conv'"),
        ({"unshuffle": False}, "unshuffle is False"),
        ({"sf": 4}, "sf is 4 and unshuffle_scale 8, expected the same power of two"),
        ({"num_heads": [2, 5]}, r"width 12 do not fit heads \[2, 5\]"),
        ({"depths": [2]}, "1 groups"),
    ],
)
def test_another_swinir_is_refused_with_what_was_expected(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadValueError, match=fault):
        replace(TINY, **change)
