from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import FileAccessError, WeightsError
from kintsugi.core.weights.convert import convert_pickle
from kintsugi.core.weights.inspection import describe_weights
from safetensors.torch import load_file, save_file


def pickled(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def converted(tmp_path: Path, content: Any, name: str = "weights.pt") -> dict[str, torch.Tensor]:
    convert_pickle(pickled(tmp_path / name, content), tmp_path / "out.safetensors")
    return load_file(tmp_path / "out.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_names_shapes_types_and_values_are_kept(tmp_path: Path, zipped: bool) -> None:
    state = OrderedDict(
        {"a.weight": torch.randn(3, 4), "a.half": torch.randn(5).bfloat16(), "steps": torch.tensor(7), "none": torch.empty(0, 3)}
    )
    source = pickled(tmp_path / "x.ckpt", state, zipped)
    report = convert_pickle(source, tmp_path / "x.safetensors")
    result = load_file(tmp_path / "x.safetensors")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in result.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in state.items()
    }
    assert all(torch.equal(result[name], tensor) for name, tensor in state.items())
    assert (report.tensors, report.bytes, report.left_out) == (4, 48 + 10 + 8, [])


def test_parts_of_a_nested_file_are_joined_by_dots(tmp_path: Path) -> None:
    parts = {"image_proj": {"proj.weight": torch.ones(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(3)}}
    assert sorted(converted(tmp_path, parts)) == ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"]


@pytest.mark.parametrize("wrapper", ["state_dict", "params", "params_ema", "model_state_dict"])
def test_a_trainer_checkpoint_gives_its_weights_alone(tmp_path: Path, wrapper: str) -> None:
    source = pickled(tmp_path / "x.pth", {"epoch": 3, wrapper: {"module.w": torch.ones(2)}, "optimizer": {"lr": 0.1}})
    report = convert_pickle(source, tmp_path / "x.safetensors")
    assert list(load_file(tmp_path / "x.safetensors")) == ["module.w"]
    assert report.left_out == ["epoch", "optimizer"]


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    both = {"params": {"w": torch.zeros(1)}, "params_ema": {"w": torch.ones(1)}}
    assert converted(tmp_path, both)["w"].item() == 1


def test_a_bare_tensor_is_named_after_its_file(tmp_path: Path) -> None:
    assert list(converted(tmp_path, torch.ones(1, 5), "prompt_embeds.pt")) == ["prompt_embeds"]


def test_shared_and_strided_tensors_get_memory_of_their_own(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    result = converted(tmp_path, {"a": base, "b": base, "row": base[1], "turned": base.t()})
    assert torch.equal(result["b"], base)
    assert torch.equal(result["row"], base[1])
    assert torch.equal(result["turned"], base.t())


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"entry part\.rate is a float, not a tensor"):
        converted(tmp_path, {"part": {"w": torch.ones(1), "rate": 0.5}})
    assert not (tmp_path / "out.safetensors").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_named_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    source = pickled(tmp_path / "evil.pt", {"w": _Evil()}, zipped)
    with pytest.raises(WeightsError, match=r"evil\.pt: wants to load \w+\.system"):
        convert_pickle(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", b"\x89PNG\r\n\x1a\n" + bytes(64), pickle.dumps([1, 2])])
def test_what_is_no_pickle_of_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "odd.ckpt"
    source.write_bytes(content)
    with pytest.raises(WeightsError, match=r"odd\.ckpt"):
        convert_pickle(source, tmp_path / "out.safetensors")


def test_half_a_pickle_is_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "half.pt", {"w": torch.randn(100, 100)})
    source.write_bytes(source.read_bytes()[:20000])
    with pytest.raises(WeightsError, match=r"half\.pt: is not a whole pickle"):
        convert_pickle(source, tmp_path / "out.safetensors")


def test_a_safetensors_file_needs_no_conversion(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "good.pt")
    with pytest.raises(WeightsError, match="safetensors file already"):
        convert_pickle(tmp_path / "good.pt", tmp_path / "out.safetensors")


def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    source, target = pickled(tmp_path / "x.pt", {"w": torch.ones(1)}), tmp_path / "x.safetensors"
    target.write_text("precious")
    with pytest.raises(FileAccessError, match="--overwrite"):
        convert_pickle(source, target)
    assert target.read_text() == "precious"
    convert_pickle(source, target, overwrite=True)
    assert describe_weights(target).tensors == 1


def test_a_header_tells_tensors_parameters_types_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(3, 4), "b": torch.zeros(4).half()}, path, metadata={"made": "here"})
    found = describe_weights(path)
    assert (found.tensors, found.parameters, found.dtypes, found.metadata) == (2, 16, {"F32": 12, "F16": 4}, {"made": "here"})
    assert found.size == path.stat().st_size


def test_half_a_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=r"half\.safetensors: is not a whole safetensors file"):
        describe_weights(path)
