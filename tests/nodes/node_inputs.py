"""The inputs of a node that a person sees."""

from __future__ import annotations

from typing import Any


def visible_inputs(node: Any) -> dict[str, Any]:
    """By name, the required ones first; hidden ones are left out."""
    sections = node.INPUT_TYPES()
    return {name: spec for section in ("required", "optional") for name, spec in sections.get(section, {}).items()}
