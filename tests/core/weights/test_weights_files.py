"""Our own weights files: written whole, and readable by whoever shares the folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from kintsugi.core.weights.files import read_weights, write_weights


def test_tensors_and_configuration_come_back_in_the_dtype_they_are_stored_in(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.safetensors"
    write_weights(path, {"weight": torch.tensor([[1.0, 0.5]]).T, "steps": torch.tensor([3])}, {"kind": "tiny"})
    tensors, config = read_weights(path)
    assert config == {"kind": "tiny"} and torch.equal(tensors["steps"], torch.tensor([3]))
    assert torch.equal(tensors["weight"], torch.tensor([[1.0], [0.5]], dtype=torch.float16))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission mask")
def test_weights_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.safetensors", {"weight": torch.zeros(2)}, {})
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "a.safetensors"
    write_weights(path, {"weight": torch.zeros(2)}, {"version": 1})
    with pytest.raises(AttributeError):
        write_weights(path, {"weight": None}, {"version": 2})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        write_weights(path, {"weight": torch.zeros(2)}, {"version": object()})
    assert read_weights(path)[1] == {"version": 1}
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]
