"""Our own weights files: written whole, readable by whoever shares the folder, and refused by name when they do not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.runtime import LocalHost
from kintsugi.core.weights import embedded
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.gendr import read_generator
from kintsugi.core.weights.generators import load_generator, weights_choices
from kintsugi.core.weights.options import LoadOptions


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


def written(path: Path, **changes: Any) -> Path:
    """The embedded generator with tensors replaced, or left out where the change is None."""
    tensors, config = read_weights(embedded.GENERATORS["gendr"])
    kept = {name: changes.get(name, tensor) for name, tensor in tensors.items()}
    write_weights(path, {name: tensor for name, tensor in kept.items() if tensor is not None}, {**config, **changes.get("config", {})})
    return path


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prompt": None}, "no such file"),
        ({"prompt": torch.zeros(1, 8, 5)}, r"the prompt embedding is \[1, 8, 5\], expected \[1, tokens, 32\]"),
        ({"unet.conv_in.bias": None}, r"tensor conv_in\.bias is missing"),
        ({"unet.conv_in.bias": torch.zeros(7)}, r"tensor conv_in\.bias is \[7\], expected \[96\]"),
        ({"config": {"kind": "vae"}}, "holds vae, not gendr"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    path = written(tmp_path / "generator.safetensors", **changes)
    with pytest.raises(WeightsError, match=fault) as refused:
        read_generator(path, LoadOptions())
    assert str(path.parent) in str(refused.value)


def test_a_cut_file_a_pickle_and_no_file_are_refused_with_the_way_out(tmp_path: Path) -> None:
    whole = embedded.VAE.read_bytes()
    for name, content in (("cut.safetensors", whole[: len(whole) // 2]), ("pickle.safetensors", b"\x80\x02}q\x00.")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="kintsugi convert"):
            read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path / "none.safetensors")


def test_the_generators_own_file_is_taken_by_auto_and_by_name(host: LocalHost) -> None:
    folder = host.folders.models / "kintsugi" / "gendr"
    folder.mkdir(parents=True)
    written(folder / "generator.safetensors")
    assert weights_choices() == ["auto", "embedded", "gendr/generator.safetensors"]
    assert load_generator("gendr", "auto").name == load_generator("gendr", "gendr/generator.safetensors").name == "gendr (generator)"
    with pytest.raises(WeightsError, match="leaves the folder"):
        load_generator("gendr", "../../secret.safetensors")


def test_auto_says_that_a_pickle_lies_where_weights_are_expected(host: LocalHost, caplog: pytest.LogCaptureFixture) -> None:
    folder = host.folders.models / "kintsugi" / "instarevive"
    folder.mkdir(parents=True)
    (folder / "InstaRevive_v1.ckpt").touch()
    load_generator("instarevive", "auto")
    assert f"kintsugi convert {folder}/InstaRevive_v1.ckpt {folder}/InstaRevive_v1.safetensors" in caplog.text
    with pytest.raises(WeightsError, match=r"kintsugi convert InstaRevive_v1\.ckpt InstaRevive_v1\.safetensors"):
        load_generator("instarevive", "instarevive/InstaRevive_v1.ckpt")
