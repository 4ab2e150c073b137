"""InstantIR's Aggregator files: published names, where the weights wait, and ControlNets and other U-Nets refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import WeightsError
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.mini import build_unet
from kintsugi.core.models.offload import OFFLOADS
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.instantir import load_aggregator
from kintsugi.core.weights.instantir_aggregator import read_aggregator
from published_layouts import write_single_file
from tiny_instantir import FILES, UNET, aggregator_tensors, place_of
from torch import Tensor


@pytest.fixture
def file(host: LocalHost) -> Path:
    """A narrow Aggregator where the published one lies."""
    path = place_of(host, "aggregator.safetensors")
    write_weights(path, aggregator_tensors(), {"kind": "aggregator", "unet": UNET}, torch.float32)
    return path


def test_published_names_are_read_saved_and_read_again_to_the_bit(file: Path) -> None:
    assert set(aggregator_tensors()) == set(FILES["aggregator.pt"]["tensors"])
    again = file.with_name("again.safetensors")
    write_weights(again, dict(read_aggregator(file, torch.float32).state_dict()), {"unet": UNET}, torch.float32)
    read = read_aggregator(again, torch.float32).state_dict()
    assert read.keys() == aggregator_tensors().keys()
    assert all(torch.equal(tensor, aggregator_tensors()[name]) for name, tensor in read.items())


def test_both_input_convolutions_begin_alike_and_move_apart() -> None:
    aggregator = Aggregator(build_unet(UNET))
    assert torch.equal(aggregator.ref_conv_in.weight, aggregator.conv_in.weight)
    with torch.no_grad():
        aggregator.conv_in.weight.zero_()
    assert aggregator.ref_conv_in.weight.abs().min() > 0


@torch.inference_mode()
def test_it_gives_the_same_wherever_its_weights_wait(file: Path) -> None:
    latents = torch.randn(2, 1, 4, 8, 12)
    inputs = (*latents, torch.tensor([500]), torch.randn(1, 8), torch.tensor([[64.0, 96.0, 0.0, 0.0, 64.0, 96.0]]))
    expected = load_aggregator("auto")(*inputs)
    assert [residual.shape[1] for residual in expected] == [4, 4, 4, 4, 8, 8, 8, 12, 12, 12]
    for offload in OFFLOADS[1:]:
        residuals = load_aggregator("auto", "fp32", offload)(*inputs)
        for residual, other in zip(residuals, expected, strict=True):
            # Eight bits round the weights.
            torch.testing.assert_close(residual, other, rtol=0, atol=0.05 if offload == "layerwise fp8" else 0)
    assert load_aggregator("auto", "bf16").dtype == torch.bfloat16


def test_the_golden_weights_are_read_with_their_configuration(tmp_path: Path) -> None:
    folder = GOLDEN / "instantir"
    parts = sorted(folder.glob("weights_aggregator-*.safetensors"))
    tensors = {name: tensor for part in parts for name, tensor in read_weights(part)[0].items()}
    unet = json.loads((folder / "config.json").read_text())["unet"]
    write_weights(tmp_path / "golden.safetensors", tensors, {"unet": unet}, None)
    read = read_aggregator(tmp_path / "golden.safetensors", torch.float32).state_dict()
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(("told", "fits"), [({"shared_width": 5}, True), ({}, False)])
def test_a_narrower_aggregator_of_ours_tells_its_width(tmp_path: Path, told: dict[str, int], fits: bool) -> None:
    narrow = Aggregator(build_unet(UNET), shared_width=5)
    write_weights(tmp_path / "narrow.safetensors", dict(narrow.state_dict()), {"unet": UNET, **told}, torch.float32)
    if not fits:
        with pytest.raises(WeightsError, match=r"mlp_shared\.0\.weight is \[5, 4, 3, 3\], expected \[128, 4, 3, 3\]"):
            read_aggregator(tmp_path / "narrow.safetensors", torch.float32)
        return
    read = read_aggregator(tmp_path / "narrow.safetensors", torch.float32).state_dict()
    assert all(torch.equal(tensor, narrow.state_dict()[name]) for name, tensor in read.items())


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda tensors: tensors.pop("mid_block.resnets.0.conv1.bias"), r"tensor mid_block\.resnets\.0\.conv1\.bias is missing"),
        (lambda tensors: tensors.pop("add_embedding.linear_1.bias"), r"tensor add_embedding\.linear_1\.bias is missing"),
        (lambda tensors: tensors.update({"up_blocks.0.bias": torch.zeros(1)}), r"tensor up_blocks\.0\.bias is unknown"),
        (
            lambda tensors: tensors.update({"ref_conv_in.weight": torch.zeros(4, 9, 3, 3)}),
            r"tensor ref_conv_in\.weight is \[4, 9, 3, 3\], expected \[4, 4, 3, 3\]",
        ),
        (lambda tensors: tensors.pop("ref_conv_in.weight"), r"is not InstantIR's Aggregator but another network"),
    ],
)
def test_an_aggregator_that_does_not_fit_is_refused_by_name(file: Path, change: Change, fault: str) -> None:
    tensors, config = read_weights(file)
    change(tensors)
    write_weights(file, tensors, config, torch.float32)
    with pytest.raises(WeightsError, match=fault) as refused:
        load_aggregator()
    assert str(file) in str(refused.value)


def blocks(*widths: int) -> dict[str, Tensor]:
    """The first convolution of every level, and the Aggregator's own."""
    tensors = {f"down_blocks.{level}.resnets.0.conv1.weight": torch.zeros(width, 1) for level, width in enumerate(widths)}
    return {"ref_conv_in.weight": torch.zeros(1), **tensors}


@pytest.mark.parametrize(
    ("tensors", "config", "fault"),
    [
        (blocks(320, 640, 1280, 1280), {}, "U-Net of 320, 640, 1280, 1280 channels, SDXL base has 320, 640, 1280"),
        (blocks(384, 768, 1536, 1536), {}, "U-Net of 384, 768, 1536, 1536 channels, SDXL base has 320, 640, 1280"),
        (blocks(4, 8, 8), {"unet": UNET}, "U-Net of 4, 8, 8 channels, its configuration has 4, 8, 12"),
        ({"controlnet_mid_block.weight": torch.zeros(1)}, {}, "is not InstantIR's Aggregator but a ControlNet"),
        ({"image_proj.latents": torch.zeros(1)}, {}, "is not InstantIR's Aggregator but its DCP"),
    ],
)
def test_encoders_of_other_networks_are_told_apart(tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, Any], fault: str) -> None:
    write_single_file(tmp_path / "other.safetensors", tensors, config)
    with pytest.raises(WeightsError, match=fault):
        read_aggregator(tmp_path / "other.safetensors", torch.float32)
