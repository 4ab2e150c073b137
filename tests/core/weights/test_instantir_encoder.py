"""The image encoder of InstantIR's DCP: where DINOv2 is found, that it is DINOv2, and that it has the width the DCP takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights.diffusers_folders import read_network_folder
from kintsugi.core.weights.files import NetworkFile, read_weights, write_weights
from kintsugi.core.weights.instantir import encoder_choices, load_perceptor
from published_layouts import write_single_file
from tiny_instantir import RESAMPLER, dcp_tensors, place_of, write_dinov2


@pytest.fixture
def usual(host: LocalHost) -> Path:
    """A published DCP where it lies, and beside it the place of its DINOv2."""
    write_single_file(place_of(host, "adapter.safetensors"), dcp_tensors())
    return place_of(host, "dinov2-large")


def elsewhere(host: LocalHost, name: str) -> Path:
    return host.folders.models / "clip_vision" / name


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_usual_folder_is_read_to_the_bit(usual: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_dinov2(usual)
    with caplog.at_level("INFO", "kintsugi"):
        perceptor = load_perceptor()
    assert "Weights of InstantIR's DCP: instantir/adapter.safetensors." in caplog.text
    assert "Image encoder of InstantIR's DCP: kintsugi/instantir/dinov2-large." in caplog.text
    assert perceptor.name == "adapter" and not perceptor.encoder.training
    read = perceptor.encoder.state_dict()
    assert read.keys() == written.state_dict().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in written.state_dict().items())
    pixels = torch.rand(1, 3, 56, 84)
    assert torch.equal(perceptor.encoder(pixels).last_hidden_state, written(pixels).last_hidden_state)


def test_its_tensors_have_the_names_of_the_release(usual: Path) -> None:
    write_dinov2(usual)
    names = set(read_network_folder(usual).tensors)
    assert {"embeddings.cls_token", "encoder.layer.1.attention.attention.query.weight", "layernorm.weight"} <= names


def test_another_dinov2_that_fits_is_found_without_a_name(usual: Path, host: LocalHost) -> None:
    write_dinov2(elsewhere(host, "giant"), hidden_size=16)
    write_dinov2(elsewhere(host, "fitting"))
    (elsewhere(host, "broken")).mkdir()
    (elsewhere(host, "broken") / "config.json").write_text("{")
    assert encoder_choices() == ["auto", "clip_vision/fitting", "clip_vision/giant"]
    for name in ("auto", "clip_vision/fitting"):
        assert load_perceptor(encoder=name, dtype="bf16").encoder.dtype == torch.bfloat16


def test_what_cannot_be_read_is_passed_over_and_said(usual: Path, host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere(host, "broken").mkdir(parents=True)
    (elsewhere(host, "broken") / "config.json").write_text("{")
    assert encoder_choices() == ["auto"] and "broken" in caplog.text and "cannot be read as JSON" in caplog.text


def test_without_any_it_is_told_where_to_put_one(usual: Path, host: LocalHost) -> None:
    with pytest.raises(WeightsError, match=r"found no DINOv2 with tokens 12 wide, searched .*kintsugi.*kintsugi models fetch dinov2-large"):
        load_perceptor()
    with pytest.raises(WeightsError, match=r"there is no image encoder 'clip_vision/none'\. Found: none\. Choose one of them, or auto"):
        load_perceptor(encoder="clip_vision/none")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hidden_size": 16}, "its tokens are 16 wide, the DCP takes 12"),
        ({"model_type": "dinov2_with_registers"}, "holds a dinov2_with_registers, expected dinov2"),
        ({"model_type": "clip_vision_model"}, "holds a clip_vision_model, expected dinov2"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "kintsugi/instantir/dinov2-large"])
def test_another_network_or_width_is_refused_wherever_it_is_chosen(usual: Path, name: str, changes: dict[str, Any], fault: str) -> None:
    write_dinov2(usual)
    change_config(usual, **changes)
    with pytest.raises(WeightsError, match=fault) as refused:
        load_perceptor(encoder=name)
    assert str(usual) in str(refused.value) and "kintsugi models fetch dinov2-large" in str(refused.value)


@pytest.mark.parametrize(
    ("tensor", "value", "fault"),
    [
        ("layernorm.bias", None, r"tensor layernorm\.bias is missing"),
        ("layernorm.bias", torch.zeros(3), r"tensor layernorm\.bias is \[3\], expected \[12\]"),
        ("embeddings.register_tokens", torch.zeros(1, 4, 12), r"tensor embeddings\.register_tokens is unknown"),
    ],
)
def test_tensors_of_another_network_are_refused_by_name(usual: Path, tensor: str, value: torch.Tensor | None, fault: str) -> None:
    write_dinov2(usual)
    tensors, _ = read_weights(usual / "model.safetensors")
    changed = {name: kept for name, kept in {**tensors, tensor: value}.items() if kept is not None}
    write_single_file(usual / "model.safetensors", changed)
    with pytest.raises(WeightsError, match=fault):
        load_perceptor()


def test_a_pickle_is_refused_with_the_way_out(usual: Path) -> None:
    write_dinov2(usual)
    shutil.move(usual / "model.safetensors", usual / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has a pickle \(pytorch_model\.bin\).*kintsugi convert"):
        load_perceptor()


def write_own(usual: Path) -> NetworkFile:
    """The DCP's file with an encoder inside, as training exports it."""
    write_dinov2(usual)
    inside = read_network_folder(usual)
    tensors = {**dcp_tensors(), **{f"encoder.{name}": tensor for name, tensor in inside.tensors.items()}}
    write_weights(usual.with_name("own.safetensors"), tensors, {"kind": "dcp", "encoder": inside.config}, torch.float32)
    return inside


def test_a_file_of_ours_brings_its_encoder(usual: Path) -> None:
    write_own(usual)
    published = load_perceptor("auto")
    shutil.rmtree(usual)
    own = load_perceptor("instantir/own.safetensors")
    pixels = torch.rand(1, 3, 28, 28)
    assert torch.equal(own.encoder(pixels).last_hidden_state, published.encoder(pixels).last_hidden_state)
    assert own.dcp.image_proj.config == RESAMPLER


def test_a_folder_chosen_by_name_goes_before_the_files_own_encoder(usual: Path, host: LocalHost) -> None:
    write_own(usual)
    write_dinov2(elsewhere(host, "giant"), hidden_size=16)
    with pytest.raises(WeightsError, match="its tokens are 16 wide, the DCP takes 12"):
        load_perceptor("instantir/own.safetensors", "clip_vision/giant")
