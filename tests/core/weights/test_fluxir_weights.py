"""FluxIR's file: it comes back as it was written, and one that is not whole is told by file, tensor, expected and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.weights.files import read_weights, write_weights
from kintsugi.core.weights.fluxir import read_adapter, write_adapter
from tiny_flux import tiny_adapter, tiny_flux

NAME = "se_z.1.squeeze.weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An adapter's file in float32."""
    path = tmp_path / "fluxir_adapter.safetensors"
    write_adapter(path, tiny_adapter(tiny_flux(), injection="before"), None)
    return path


def rewrite(path: Path, config: dict[str, Any] | None = None, **changes: Any) -> None:
    """The file with tensors replaced, added, or left out where the change is None."""
    tensors, told = read_weights(path)
    kept = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
    write_weights(path, kept, told if config is None else config, None)


def test_an_adapters_file_round_trips_to_the_bit(path: Path) -> None:
    adapter, found = tiny_adapter(tiny_flux(), injection="before"), read_adapter(path)
    tensors = found.state_dict()
    assert all(torch.equal(tensor, tensors.pop(name)) for name, tensor in adapter.state_dict().items()) and not tensors
    assert {name: found.config[name] for name in adapter.config} == dict(adapter.config)
    found.require_fit(tiny_flux())


def test_weights_are_kept_in_bf16_unless_told_otherwise(path: Path) -> None:
    write_adapter(path, read_adapter(path))
    assert {tensor.dtype for tensor in read_weights(path)[0].values()} == {torch.bfloat16}
    assert read_adapter(path).dtype == torch.float32 and read_adapter(path, torch.bfloat16).dtype == torch.bfloat16


def test_a_folder_of_diffusers_is_read_as_strictly(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    read_adapter(path).save_pretrained(folder)
    found = read_adapter(folder)
    assert found.config.injection == "before"
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in read_weights(path)[0].items())
    rewrite(folder / "diffusion_pytorch_model.safetensors", **{NAME: None})
    with pytest.raises(WeightsError, match=f"adapter: tensor {NAME} is missing"):
        read_adapter(folder)
    tiny_flux().save_pretrained(folder)
    with pytest.raises(WeightsError, match="adapter: holds FluxTransformer2DModel, not FluxAdapter"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, f"tensor {NAME} is missing"),
        (torch.zeros(5, 32), rf"tensor {NAME} is \[5, 32\], expected \[4, 32\]"),
    ],
    ids=["missing", "misshapen"],
)
def test_a_file_that_is_not_whole_is_told_by_tensor_expected_and_found(path: Path, change: Any, told: str) -> None:
    rewrite(path, **{NAME: change})
    with pytest.raises(WeightsError, match=f"fluxir_adapter.safetensors: {told}"):
        read_adapter(path)


def test_an_unknown_tensor_and_another_kind_are_refused(path: Path) -> None:
    rewrite(path, **{"se_z.9.excite.bias": torch.zeros(32)})
    with pytest.raises(WeightsError, match=r"tensor se_z\.9\.excite\.bias is unknown"):
        read_adapter(path)
    rewrite(path, {"kind": "gendr"})
    with pytest.raises(WeightsError, match="holds gendr, not fluxir"):
        read_adapter(path)


@pytest.mark.parametrize("entry", [{"depth": 2}, {"injection": "between"}], ids=str)
def test_a_configuration_of_something_else_is_refused(path: Path, entry: dict[str, Any]) -> None:
    rewrite(path, {"kind": "fluxir", "adapter": entry})
    with pytest.raises(WeightsError, match="its configuration is not that of a FluxIR adapter"):
        read_adapter(path)


def test_a_bare_file_is_taken_for_one_of_the_full_size(path: Path) -> None:
    rewrite(path, {})
    with pytest.raises(WeightsError, match=r"tensor se_z\.5\.squeeze\.weight is missing; .* and \d+ more faults"):
        read_adapter(path)
