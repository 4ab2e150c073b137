"""What the widgets of a node say when it is put down."""

from __future__ import annotations

from typing import Any


def defaults(node: Any) -> dict[str, Any]:
    """Its required widgets alone; inputs without one are left out."""
    specs = node.INPUT_TYPES()["required"]
    return {name: spec["default"] for name, (_, spec) in specs.items() if "default" in spec}
