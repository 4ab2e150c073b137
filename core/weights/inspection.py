"""What a safetensors file holds, read from its header alone: no tensor is loaded and torch is not needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError


@dataclass(frozen=True)
class WeightsDescription:
    """tensors: how many; parameters: their elements; dtypes: elements by type as the file spells it; size in bytes."""

    tensors: int
    parameters: int
    dtypes: dict[str, int]
    size: int
    metadata: dict[str, str]


def describe_weights(path: Path) -> WeightsDescription:
    """Raises WeightsError for a half-written file, another format, and what cannot be opened."""
    elements: Counter[str] = Counter()
    with _header(path) as file:
        names = list(file.keys())
        for name in names:
            tensor = file.get_slice(name)
            elements[str(tensor.get_dtype())] += math.prod(tensor.get_shape())
        metadata = dict(file.metadata() or {})
        size = path.stat().st_size
    return WeightsDescription(len(names), sum(elements.values()), dict(elements), size, metadata)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its name. Raises WeightsError as describe_weights() does."""
    with _header(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)


@contextmanager
def _header(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise WeightsError(
            f"is not a whole safetensors file ({error}).",
            where=str(path),
            way_out="Its download or copy was probably cut short: fetch it again.",
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot be opened: {error}.", where=str(path), way_out="Check the path and its permissions.") from error
