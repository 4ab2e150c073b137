"""The values of one run, each kept while a node that has not run yet may need it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from ..errors import BadValueError
from .cache import Entry


class ValueStore:
    """Results by node id. retained: ids whose results stay to the end."""

    def __init__(self, retained: Collection[str]) -> None:
        self._retained = retained
        self._entries: dict[str, Entry] = {}
        self._holders: Counter[str] = Counter()
        self._held_by: dict[str, list[str]] = {}

    def get(self, node_id: str) -> Entry | None:
        """What the node gave, or None."""
        return self._entries.get(node_id)

    def put(self, node_id: str, entry: Entry) -> None:
        """Keep what the node gave until nobody needs it."""
        self._entries[node_id] = entry

    def of_slot(self, node_id: str, slot: int) -> list[Any] | None:
        """The values of one output; None when the node has not run. Raises BadValueError when it has no such output."""
        entry = self._entries.get(node_id)
        if entry is None:
            return None
        if not 0 <= slot < len(entry.outputs):
            raise BadValueError(f"Node {node_id} has {len(entry.outputs)} outputs, and a link asks for number {slot}.")
        return entry.outputs[slot]

    def hold(self, holder: str, node_ids: list[str]) -> None:
        """Keeps the results of these nodes, now or once they are there, until `holder` is released."""
        self._held_by.setdefault(holder, []).extend(node_ids)
        self._holders.update(node_ids)

    def release(self, holder: str) -> None:
        """`holder` has run: what only it needed goes, and its own result too when nobody waits for that."""
        for node_id in (*self._held_by.pop(holder, ()), holder):
            if node_id != holder:
                self._holders[node_id] -= 1
            if self._holders[node_id] <= 0 and node_id not in self._retained:
                self._entries.pop(node_id, None)
                del self._holders[node_id]
