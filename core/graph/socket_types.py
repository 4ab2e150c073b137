"""When an output may feed an input: types are comma separated sets of names, and one common name is enough."""

from __future__ import annotations

from typing import Any

ANY = "*"
COMBO = "COMBO"


def type_name(kind: Any) -> Any:
    """A type as V1 classes and files write it, as a string: a list of choices is COMBO, a number LiteGraph's wildcard.

    Strings stay the objects they are, because a class may give a string type of its own that equals everything.
    """
    if isinstance(kind, str):
        return kind or ANY
    return COMBO if isinstance(kind, (list, tuple)) else ANY


def accepts(received: Any, expected: Any) -> bool:
    """The executor's test. `*` means nothing special here; a str subclass may override `!=` to take everything."""
    if received != expected:
        return not _names(received).isdisjoint(_names(expected))
    return True


def connects(one: Any, other: Any) -> bool:
    """The editor's test, which bypassing uses: `*` fits everything and case does not matter."""
    return ANY in (one, other) or not _names(one.upper()).isdisjoint(_names(other.upper()))


def _names(kind: str) -> set[str]:
    return {name.strip() for name in kind.split(",")}
