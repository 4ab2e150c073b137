"""What one-step methods hold in memory, as published and as we run them; told without reading a weight.

As published, adapters run beside the layers they change, and everything a fixed prompt and timestep decide is computed anew
for every picture. Ours are merged and folded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..models.folding import memory_of
from . import embedded
from .families import Shapes
from .files import configuration_in
from .generators import READERS, weights_choices
from .inspection import describe_weights, tensor_shapes
from .locations import find_weights

FULL_SIZE = "full size"

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}


@dataclass(frozen=True)
class MethodMemory:
    """Bytes of a method's transformer or U-Net. weights: a student's name, `embedded` or `full size`; dtype: as it is stored."""

    method: str
    weights: str
    dtype: str
    as_published: int
    as_we_run_it: int


def method_memories(damaged: Collection[Path] = ()) -> list[MethodMemory]:
    """Of every method its full size in 16 bits, then each student found, else the embedded one. damaged: files to leave out."""
    return [memory for method in READERS for memory in (_measured(method, FULL_SIZE, "F16", {}, {}), *_of_students(method, damaged))]


def _of_students(method: str, damaged: Collection[Path]) -> list[MethodMemory]:
    names = [name for name in weights_choices() if name.startswith(f"{method}/")]
    students = {name: find_weights("kintsugi", name) for name in names} or {"embedded": embedded.GENERATORS[method]}
    return [_of_student(method, name, path) for name, path in students.items() if path not in damaged]


def _of_student(method: str, name: str, path: Path) -> MethodMemory:
    header = describe_weights(path)
    dtype = max((kind for kind in header.dtypes if kind in _DTYPES), key=header.dtypes.__getitem__, default="F32")
    return _measured(method, name, dtype, configuration_in(header.metadata, str(path)), tensor_shapes(path))


def _measured(method: str, name: str, dtype: str, config: dict[str, Any], shapes: Shapes) -> MethodMemory:
    empty, size = READERS[method].empty(config, shapes), _DTYPES[dtype].itemsize
    network = empty.method.to(_DTYPES[dtype])
    before = memory_of(network) + empty.adapter * size
    network.fold()
    return MethodMemory(method, name, dtype, before, memory_of(network) - empty.factored * size)
