"""Golden files and the comparison with them: what every method's parity cases share.

A case belongs to a method and knows, from a sidecar's content, whether it can check that file. Numbers, names, shapes
and tolerances all come from the sidecar, so that a folder of the same form with other numbers works unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

Kind = Literal["inference", "training"]


class BadRequestError(Exception):
    """A folder, method or sidecar that cannot be worked with: exit status 2."""


@dataclass(frozen=True)
class Check:
    """One tensor held against its reference. error and limit are relative to max|reference|, or shares of 8-bit values."""

    case: str
    file: str
    tensor: str
    error: float
    limit: float
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Sidecar:
    """A golden .json and, on demand, the tensors of the .safetensors it describes."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Sidecar | None:
        """The sidecar, or None where the file describes no tensors."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadRequestError(f"{path}: cannot be read as JSON: {error}") from None
        return cls(path, content) if isinstance(content, dict) and isinstance(content.get("tensors"), dict) else None

    @property
    def config(self) -> dict[str, Any]:
        return self.content.get("config") or {}

    @property
    def names(self) -> list[str]:
        return list(self.content["tensors"])

    def meaning(self, name: str) -> str:
        return str(self.content["tensors"][name].get("meaning", ""))

    @property
    def limit(self) -> float:
        try:
            return float(self.content["tolerance"]["limit"])
        except (KeyError, TypeError, ValueError):
            raise BadRequestError(f"{self.path}: no tolerance.limit to hold the tensors to") from None

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        names = self.content.get("files") or [self.content.get("file", self.path.with_suffix(".safetensors").name)]
        return {key: value for name in names for key, value in load_tensors(self.path.with_name(name)).items()}

    def tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise BadRequestError(f"{self.path}: tensor {name!r} is not in the file it describes")
        return self.tensors[name]

    def compare(self, case: str, name: str, computed: Tensor, note: str = "") -> Check:
        """max|x - ref| <= limit max|ref| for floating point, the sidecar's own rule for 8-bit pictures, equality for integers."""
        reference = self.tensor(name)
        if computed.shape != reference.shape:
            note = f"shape {list(computed.shape)}, expected {list(reference.shape)}"
            return self.failed(case, name, note)
        if reference.dtype == torch.uint8 and "uint8_images" in self.content["tolerance"]:
            return self._compare_levels(case, name, computed)
        limit = self.limit if reference.is_floating_point() else 0.0
        error = relative_error(computed, reference)
        return Check(case, self.path.name, name, error, limit, error <= limit, note)

    def _compare_levels(self, case: str, name: str, computed: Tensor) -> Check:
        """By a rule such as "at most 2 grey levels, on at most 0.5% of the values": the error is the share that differs."""
        rule = re.search(r"at most (\d+) grey levels?, on at most ([\d.]+) ?%", self.content["tolerance"]["uint8_images"])
        if rule is None:
            raise BadRequestError(f"{self.path}: tolerance.uint8_images names no grey levels and percentage")
        levels = (computed.int() - self.tensor(name).int()).abs()
        largest, share, limit = int(levels.max()), float((levels > 0).double().mean()), float(rule[2]) / 100
        note = f"share of values that differ, by at most {largest} of {rule[1]} grey levels"
        return Check(case, self.path.name, name, share, limit, share <= limit and largest <= int(rule[1]), note)

    def failed(self, case: str, name: str, note: str) -> Check:
        return Check(case, self.path.name, name, float("inf"), self.limit, False, note)


@dataclass(frozen=True)
class Case:
    """`applies` looks at a sidecar's content only; `run` yields a check for every output tensor of it."""

    name: str
    kind: Kind
    applies: Callable[[Sidecar], bool]
    run: Callable[[Sidecar], Iterator[Check]]


def load_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadRequestError(f"{path}: the tensors file is missing")
    return load_file(path)


def relative_error(computed: Tensor, reference: Tensor) -> float:
    """max|x - ref| / max|ref| in float64; infinite where x is not finite or ref is all zero and x is not."""
    difference = float((computed.double() - reference.double()).abs().max())
    largest = float(reference.double().abs().max())
    if difference == 0:
        return 0.0
    return difference / largest if largest > 0 and torch.isfinite(computed.double()).all() else float("inf")
