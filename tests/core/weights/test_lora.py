"""Adapters merged into the weights they belong to, or refused by name."""

from __future__ import annotations

import pytest
import torch
from kintsugi.core.errors import WeightsError
from kintsugi.core.weights.lora import Adapter, adapter_shapes, merge, require_fit
from torch import Tensor, nn


class Layers(nn.Module):
    """A linear layer and two convolutions that are targets, and neighbours that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 10)
        self.block = nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3, padding=1), "wide": nn.Conv2d(3, 8, 2, stride=2, bias=False)})
        self.reproj, self.norm = nn.Linear(6, 4), nn.LayerNorm(6)


TARGETS = ("proj", "block.conv", "wide", "norm", "absent")


@pytest.fixture
def base() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Layers().state_dict())


def adapter_for(base: dict[str, Tensor], rank: int = 4, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Adapter:
    """Drawn, of that rank, where rank 4 is expected."""
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in adapter_shapes(base, TARGETS, rank).items()}
    return Adapter(tensors, TARGETS, 4, "some/adapter.safetensors", scale=scale)


def test_targets_are_whole_components_of_the_names_of_linear_layers_and_convolutions(base: dict[str, Tensor]) -> None:
    assert adapter_shapes(base, TARGETS, 4) == {
        "transformer.proj.lora_A.weight": (4, 6), "transformer.proj.lora_B.weight": (10, 4),
        "transformer.block.conv.lora_A.weight": (4, 3, 3, 3), "transformer.block.conv.lora_B.weight": (8, 4, 1, 1),
        "transformer.block.wide.lora_A.weight": (4, 3, 2, 2), "transformer.block.wide.lora_B.weight": (8, 4, 1, 1),
    }  # fmt: skip


def test_merged_layers_do_what_layer_and_adapter_do_one_beside_the_other(base: dict[str, Tensor]) -> None:
    plain, adapter = dict(base), adapter_for(base, scale=0.5)
    merged = merge(base, adapter, torch.float32)
    tokens, planes = torch.randn(5, 6), torch.randn(2, 3, 8, 8)
    down, up = (adapter.tensors[f"transformer.proj.lora_{half}.weight"] for half in "AB")
    expected = tokens @ plain["proj.weight"].T + 0.5 * tokens @ down.T @ up.T
    torch.testing.assert_close(tokens @ merged["proj.weight"].T, expected, rtol=1e-5, atol=1e-5)
    for name, options in (("conv", {"padding": 1}), ("wide", {"stride": 2})):
        down, up = (adapter.tensors[f"transformer.block.{name}.lora_{half}.weight"] for half in "AB")
        change = nn.functional.conv2d(nn.functional.conv2d(planes, down, **options), up)  # type: ignore[arg-type]
        expected = nn.functional.conv2d(planes, plain[f"block.{name}.weight"], **options) + 0.5 * change  # type: ignore[arg-type]
        found = nn.functional.conv2d(planes, merged[f"block.{name}.weight"], **options)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    untouched = [name for name in plain if name not in ("proj.weight", "block.conv.weight", "block.wide.weight")]
    assert all(torch.equal(merged[name], plain[name]) for name in untouched)


def test_sums_are_formed_in_float32_and_rounded_once(base: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in base.items()}
    adapter = adapter_for(base, dtype=torch.bfloat16)
    exact = merge({name: tensor.float() for name, tensor in half.items()}, adapter, torch.float32)
    rounded = merge(half, adapter, torch.bfloat16)
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


def test_the_base_is_emptied_so_that_it_is_not_held_twice(base: dict[str, Tensor]) -> None:
    names = list(base)
    assert list(merge(base, adapter_for(base), torch.float32)) == names and base == {}


def test_an_adapter_of_another_rank_is_recognised_as_one(base: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError) as refused:
        merge(base, adapter_for(base, rank=2), torch.float32)
    assert str(refused.value) == (
        "some/adapter.safetensors: tensor transformer.proj.lora_A.weight is [2, 6], expected [4, 6]. "
        "The file looks like a rank-2 adapter; choose the rank-4 file of the release."
    )
    assert base


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"transformer.proj.lora_A.weight": None}, r"tensor transformer\.proj\.lora_A\.weight is missing"),
        ({"transformer.norm.lora_A.weight": torch.zeros(4, 6)}, r"tensor transformer\.norm\.lora_A\.weight is unknown"),
        ({"transformer.block.wide.lora_A.weight": torch.zeros(4, 3, 3, 3)}, r"is \[4, 3, 3, 3\], expected \[4, 3, 2, 2\]"),
    ],
)
def test_missing_unknown_and_misshapen_tensors_are_named(base: dict[str, Tensor], changes: dict[str, Tensor], fault: str) -> None:
    whole = adapter_for(base)
    tensors = {name: tensor for name, tensor in {**whole.tensors, **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=fault) as refused:
        require_fit(base, Adapter(tensors, TARGETS, 4, "some/adapter.safetensors"))
    assert str(refused.value).startswith("some/adapter.safetensors: ")


def test_a_file_of_something_else_is_no_adapter(base: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"tensor transformer\.proj\.lora_A\.weight is missing"):
        require_fit(base, Adapter({"unet.conv_in.weight": torch.zeros(3)}, TARGETS, 4, "some/adapter.safetensors"))
