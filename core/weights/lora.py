"""Low-rank adapters (LoRA) added to the weights they belong to, once, when a network is read: W + scale * B A.

A file holds two tensors per adapted layer, `<prefix><layer>.lora_A.weight` and `.lora_B.weight`. Which layers are adapted
follows from the base: those whose dotted name is one of the targets or ends in a dot and one of them, as peft matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import WeightsError
from .files import require_exact

DOWN, UP = ".lora_A.weight", ".lora_B.weight"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Adapter:
    """The tensors of an adapter's file. targets: the layers it was made for; rank: of every pair; prefix: before every
    layer's name; where: the file, for messages."""

    tensors: Mapping[str, Tensor]
    targets: Sequence[str]
    rank: int
    where: str
    prefix: str = "transformer."
    scale: float = 1.0


def merge(base: dict[str, Tensor], adapter: Adapter, dtype: torch.dtype) -> dict[str, Tensor]:
    """The base's tensors by name with the adapter added, in dtype; sums are formed in float32. `base` is emptied on the way,
    so that a large network is not held twice.

    Raises WeightsError, before any sum, when the adapter's tensors are not exactly those that the base and the targets ask for.
    """
    require_fit(base, adapter)
    return {name: _adapted(name, base.pop(name), adapter, dtype) for name in list(base)}


def require_fit(base: Mapping[str, Tensor], adapter: Adapter) -> None:
    """Raise WeightsError naming the file and the first tensors that are missing, unknown, misshapen or of another rank."""
    found = _rank_of(adapter.tensors)
    if found != adapter.rank and _shapes_of(adapter.tensors) == adapter_shapes(base, adapter.targets, found, adapter.prefix):
        expected = adapter_shapes(base, adapter.targets, adapter.rank, adapter.prefix)
        name = next(iter(adapter.tensors))
        raise WeightsError(
            f"tensor {name} is {list(adapter.tensors[name].shape)}, expected {list(expected[name])}.",
            where=adapter.where,
            way_out=f"The file looks like a rank-{found} adapter; choose the rank-{adapter.rank} file of the release.",
        )
    require_exact(adapter_shapes(base, adapter.targets, adapter.rank, adapter.prefix), adapter.tensors, adapter.where)


def adapter_shapes(base: Mapping[str, Tensor], targets: Sequence[str], rank: int, prefix: str = "transformer.") -> Shapes:
    """Names and shapes of the tensors of an adapter for the base's linear layers and convolutions that are targets."""
    shapes: Shapes = {}
    for layer, weight in _targeted(base, targets):
        outputs, inputs, *kernel = weight.shape
        shapes[f"{prefix}{layer}{DOWN}"] = (rank, inputs, *kernel)
        shapes[f"{prefix}{layer}{UP}"] = (outputs, rank, *(1 for _ in kernel))
    return shapes


def _targeted(base: Mapping[str, Tensor], targets: Sequence[str]) -> Iterable[tuple[str, Tensor]]:
    for name, weight in base.items():
        layer = name.removesuffix(".weight")
        if layer != name and weight.ndim >= 2 and any(f".{layer}".endswith(f".{target}") for target in targets):
            yield layer, weight


def _adapted(name: str, weight: Tensor, adapter: Adapter, dtype: torch.dtype) -> Tensor:
    layer = f"{adapter.prefix}{name.removesuffix('.weight')}"
    down = adapter.tensors.get(layer + DOWN) if name.endswith(".weight") else None
    if down is None:
        return weight.to(dtype) if weight.is_floating_point() else weight
    up = adapter.tensors[layer + UP]
    change = (up.float().flatten(1) @ down.float().flatten(1)).view(weight.shape)
    return torch.add(weight.float(), change, alpha=adapter.scale).to(dtype)


def _rank_of(tensors: Mapping[str, Tensor]) -> int:
    """The rank that the first pair has; 0 for a file without any."""
    return next((tensor.shape[0] for name, tensor in tensors.items() if name.endswith(DOWN) and tensor.ndim), 0)


def _shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
