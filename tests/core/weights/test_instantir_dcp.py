"""InstantIR's DCP files: published names in every container, sizes told by tensors, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from kintsugi.core.errors import WeightsError
from kintsugi.core.models.dcp import cross_attention_widths
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.weights.convert import convert_pickle
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.instantir_dcp import TIME_WIDTH, read_dcp
from published_layouts import write_single_file
from tiny_instantir import FILES, RESAMPLER, dcp_tensors, unet
from torch import Tensor


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_single_file(tmp_path / "adapter.safetensors", dcp_tensors())


def assert_is_the_drawn_one(path: Path) -> None:
    read = read_dcp(path, torch.float32).dcp.state_dict()
    assert read.keys() == dcp_tensors().keys()
    assert all(torch.equal(tensor, dcp_tensors()[name]) for name, tensor in read.items())


def test_the_narrow_file_has_every_published_name() -> None:
    published = FILES["adapter.pt"]
    assert set(dcp_tensors()) == {f"{part}.{name}" for part in ("image_proj", "ip_adapter") for name in published[part]}


def test_published_names_are_read_saved_and_read_again_to_the_bit(adapter: Path) -> None:
    file = read_dcp(adapter, torch.float32)
    assert file.dcp.image_proj.config == RESAMPLER and file.encoder is None
    assert file.dcp.widths == cross_attention_widths(unet()) and not file.dcp.training
    again = adapter.with_name("again.safetensors")
    write_weights(again, dict(file.dcp.state_dict()), {"kind": "dcp"}, torch.float32)
    assert_is_the_drawn_one(again)


def test_a_flat_container_holds_the_same(tmp_path: Path) -> None:
    flat = {
        name.replace("image_proj.", "image_proj_model.", 1).replace("ip_adapter.", "adapter_modules.", 1): tensor
        for name, tensor in dcp_tensors().items()
    }
    assert_is_the_drawn_one(write_single_file(tmp_path / "flat.safetensors", flat))


def test_the_published_pickle_converts_into_what_is_read(tmp_path: Path) -> None:
    nested: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in dcp_tensors().items():
        container, _, below = name.partition(".")
        nested[container][below] = tensor
    torch.save(nested, tmp_path / "adapter.pt")
    convert_pickle(tmp_path / "adapter.pt", tmp_path / "adapter.safetensors")
    assert_is_the_drawn_one(tmp_path / "adapter.safetensors")


@pytest.mark.parametrize("missing", ["all", "some"])
def test_time_adaptive_layers_that_are_missing_change_nothing_with_time(tmp_path: Path, missing: str) -> None:
    kept = {name: tensor for name, tensor in dcp_tensors().items() if ".ln_" not in name or (missing == "some" and "ln_k" in name)}
    dcp = read_dcp(write_single_file(tmp_path / "early.safetensors", kept), torch.float32).dcp
    assert dcp.time_width == (TIME_WIDTH if missing == "all" else unet().time_embedding.linear_2.out_features)
    for index, layer in dcp.layers.items():
        assert torch.equal(layer.to_v_ip.weight, dcp_tensors()[f"ip_adapter.{index}.to_v_ip.weight"])
        assert not layer.ln_v_ip.linear.weight.any() and not layer.ln_v_ip.linear.bias.any()
        assert bool(layer.ln_k_ip.linear.weight.any()) == (missing == "some")


def test_the_golden_weights_are_read_with_the_width_of_their_heads_in_the_metadata(tmp_path: Path) -> None:
    tensors, _ = read_weights(GOLDEN / "instantir" / "weights_dcp.safetensors")
    write_weights(tmp_path / "golden.safetensors", tensors, {"kind": "dcp", "dim_head": 16}, None)
    dcp = read_dcp(tmp_path / "golden.safetensors", torch.float32).dcp
    assert dcp.image_proj.config == ResamplerConfig(32, 2, 16, 4, 8, 24, 32)
    assert (dcp.widths, dcp.time_width) == ({1: 64, 3: 64, 5: 64, 7: 64}, 128)
    with pytest.raises(WeightsError, match=r"attention is 64 wide, no multiple of heads of 48"):
        write_weights(tmp_path / "golden.safetensors", tensors, {"kind": "dcp", "dim_head": 48}, None)
        read_dcp(tmp_path / "golden.safetensors", torch.float32)


def test_it_is_read_in_the_precision_asked_for(adapter: Path) -> None:
    assert {tensor.dtype for tensor in read_dcp(adapter, torch.bfloat16).dcp.state_dict().values()} == {torch.bfloat16}


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda tensors: tensors.pop("image_proj.latents"), r"tensor image_proj\.latents is missing"),
        (lambda tensors: tensors.pop("image_proj.norm_out.bias"), r"tensor image_proj\.norm_out\.bias is missing"),
        (lambda tensors: tensors.pop("image_proj.layers.0.0.to_q.weight"), r"image_proj\.layers\.0\.0\.to_q\.weight is missing"),
        (lambda tensors: tensors.pop("ip_adapter.3.to_v_ip.weight"), r"tensor ip_adapter\.3\.to_v_ip\.weight is missing"),
        (lambda tensors: tensors.pop("ip_adapter.3.to_k_ip.weight"), r"tensor ip_adapter\.3\.to_k_ip\.weight is missing"),
        (lambda tensors: tensors.update({"image_proj.pos_emb": torch.zeros(2)}), r"tensor image_proj\.pos_emb is unknown"),
        (lambda tensors: tensors.update({"ip_adapter.3.ln_q_ip": torch.zeros(2)}), r"tensor ip_adapter\.3\.ln_q_ip is unknown"),
        (lambda tensors: tensors.update({"image_proj.latents": torch.zeros(3, 8)}), r"latents is \[3, 8\], expected 3 dimensions"),
        (
            lambda tensors: tensors.update({"ip_adapter.3.to_v_ip.weight": torch.zeros(4, 5)}),
            r"tensor ip_adapter\.3\.to_v_ip\.weight is \[4, 5\], expected \[8, 6\]",
        ),
        (
            lambda tensors: tensors.update({"image_proj.layers.0.1.1.weight": torch.zeros(33, 8)}),
            r"layers\.0\.1\.1\.weight is \[33, 8\], expected \[32, 8\]",
        ),
        (lambda tensors: [tensors.pop(name) for name in list(tensors) if "ip_adapter" in name], r"to_k_ip\.weight is missing"),
        (lambda tensors: tensors.update({"encoder.layernorm.bias": torch.zeros(2)}), "an image encoder without its configuration"),
    ],
)
def test_a_dcp_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: Change, fault: str) -> None:
    tensors = dict(dcp_tensors())
    change(tensors)
    path = write_single_file(tmp_path / "adapter.safetensors", tensors)
    with pytest.raises(WeightsError, match=fault) as refused:
        read_dcp(path, torch.float32)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("tensors", "config", "fault"),
    [
        ({"ref_conv_in.weight": torch.zeros(1)}, {}, "is not InstantIR's DCP but its Aggregator"),
        ({"unet.conv_in.lora_A.weight": torch.zeros(1)}, {}, "is not InstantIR's DCP but its Previewer"),
        ({"conv_in.weight": torch.zeros(1)}, {}, "is not InstantIR's DCP but another network"),
        ({"image_proj.latents": torch.zeros(1)}, {"kind": "gendr"}, "holds gendr, not dcp"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, Any], fault: str) -> None:
    write_weights(tmp_path / "other.safetensors", tensors, config)
    with pytest.raises(WeightsError, match=fault):
        read_dcp(tmp_path / "other.safetensors", torch.float32)
