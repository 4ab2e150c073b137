"""How long results are remembered between runs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from .node_results import Outputs


@dataclass(frozen=True)
class Entry:
    """A node's outputs (per slot the list of its values) and what it showed. ephemeral: made by an expansion."""

    outputs: Outputs
    ui: dict[str, list[Any]] | None = None
    ephemeral: bool = False


class Cache(Protocol):
    """Results by signature."""

    def get(self, signature: str) -> Entry | None:
        """The entry of a node with that signature, or None."""

    def put(self, signature: str, entry: Entry) -> None:
        """Keep the entry of a node with that signature."""

    def begin(self, signatures: set[str]) -> None:
        """A run starts, whose prompt has these signatures."""

    def finish(self, signatures: set[str]) -> None:
        """The run ended; these are the signatures it came to, expanded nodes among them."""


class LastPromptCache:
    """Keeps what belongs to the last prompt: change one widget and only what follows it runs again. The default."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def get(self, signature: str) -> Entry | None:
        return self._entries.get(signature)

    def put(self, signature: str, entry: Entry) -> None:
        self._entries[signature] = entry

    def begin(self, signatures: set[str]) -> None:
        """Drops the rest at once, so that its memory serves the run. What expansions made may be met again in it."""
        self._entries = {key: entry for key, entry in self._entries.items() if key in signatures or entry.ephemeral}

    def finish(self, signatures: set[str]) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if key in signatures}


class LruCache:
    """Keeps the `size` results used last, whatever prompt they are from."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def get(self, signature: str) -> Entry | None:
        entry = self._entries.get(signature)
        if entry is not None:
            self._entries.move_to_end(signature)
        return entry

    def put(self, signature: str, entry: Entry) -> None:
        self._entries[signature] = entry
        self._entries.move_to_end(signature)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def begin(self, signatures: set[str]) -> None:
        return None

    def finish(self, signatures: set[str]) -> None:
        return None


class NoCache:
    """Remembers nothing: every value is released as soon as the last node that needs it has run."""

    def get(self, signature: str) -> Entry | None:
        return None

    def put(self, signature: str, entry: Entry) -> None:
        return None

    def begin(self, signatures: set[str]) -> None:
        return None

    def finish(self, signatures: set[str]) -> None:
        return None
