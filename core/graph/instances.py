"""The objects of node classes: one per node id, kept between runs, so that a node may remember what it loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .node_code import call
from .registry import Definition


class Instances:
    """By node id; an id whose class changes gets a new object."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[str, Any]] = {}

    def get(self, node_id: str, definition: Definition) -> Any:
        """The node's object, made at its first run. Raises NodeCodeError when its constructor fails."""
        known = self._objects.get(node_id)
        if known is None or known[0] != definition.class_type:
            known = self._objects[node_id] = (definition.class_type, call(definition.node_class))
        return known[1]

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Drops the objects of nodes that the last prompt no longer had."""
        self._objects = {node_id: known for node_id, known in self._objects.items() if wanted(node_id)}
