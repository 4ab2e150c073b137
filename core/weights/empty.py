"""Methods without weights: their modules on the meta device, where shapes are known and nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EmptyMethod:
    """A method's module on the meta device, not folded.

    adapter: elements of the adapters that its publication runs unmerged. factored: elements that folding saves in tables by
    looking at their values, which are not there.
    """

    method: Any
    adapter: int = 0
    factored: int = 0
