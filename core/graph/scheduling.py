"""Which node runs next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable


class Schedule:
    """Topological order that may grow while it is walked.

    Among nodes that are ready, those that are `urgent` (outputs, async nodes) come first, then those that feed an
    urgent output, then those two steps away from one, then the rest, each in the order in which they were found.

    sources(node): ids it must wait for, asked once, when the node is taken in. available(node): its values are there
    already, so neither it nor anything upstream is needed. is_output, urgent: by node id.
    """

    def __init__(
        self,
        sources: Callable[[str], Iterable[str]],
        available: Callable[[str], bool],
        is_output: Callable[[str], bool],
        urgent: Callable[[str], bool],
    ) -> None:
        self._sources, self._available = sources, available
        self._is_output, self._urgent = is_output, urgent
        self._waiting_for: dict[str, set[str]] = {}
        self._consumers: dict[str, list[str]] = {}
        self._feeding_output: set[str] = set()
        self._done: set[str] = set()
        self._found: dict[str, int] = {}
        self._number = itertools.count()
        self._ready: list[tuple[int, int, str]] = []

    def __bool__(self) -> bool:
        """True while nodes are left to run."""
        return bool(self._waiting_for)

    def unfinished(self) -> list[str]:
        """Nodes that have not run."""
        return list(self._waiting_for)

    def waits_for(self, node: str) -> set[str]:
        """Nodes that must run before this one."""
        return self._waiting_for.get(node, set())

    def add(self, root: str) -> None:
        """Schedules a node and everything it waits for, unless its values are available."""
        if root in self._found:
            return
        if self._available(root):
            self._found[root] = next(self._number)
            self._done.add(root)
            return
        self._push_ready(self._explore(root))

    def _explore(self, root: str) -> list[str]:
        """Takes in a node whose values are not available, and whatever it needs that is neither known nor available."""
        found, stack = [], [root]
        while stack:
            node = stack.pop()
            if node in self._found:
                continue
            self._found[node] = next(self._number)
            self._waiting_for[node] = set()
            found.append(node)
            stack += reversed([source for source in self._sources(node) if self._connect(node, source)])
        return found

    def _connect(self, node: str, source: str) -> bool:
        """Makes node wait for source if that has to run; True when source still has to be explored."""
        if source in self._done:
            return False
        known = source in self._found
        if not known and self._available(source):
            self._found[source] = next(self._number)
            self._done.add(source)
            return False
        self._waiting_for[node].add(source)
        self._consumers.setdefault(source, []).append(node)
        if self._is_output(node):
            self._feeding_output.add(source)
        return not known

    def require(self, node: str, sources: Iterable[str]) -> None:
        """A node that came up needs these first; it comes up again when they have run."""
        found = []
        for source in sources:
            if self._connect(node, source):
                found += self._explore(source)
        self._push_ready([*found, node])

    def _push_ready(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            if not self._waiting_for[node]:
                self._push(node)

    def _push(self, node: str) -> None:
        heapq.heappush(self._ready, (self._rank(node), self._found[node], node))

    def _rank(self, node: str) -> int:
        if self._urgent(node):
            return 0
        if node in self._feeding_output:
            return 1
        return 2 if any(consumer in self._feeding_output for consumer in self._consumers.get(node, ())) else 3

    def pop(self) -> str | None:
        """The next node to run; None when all that is left waits for something."""
        return heapq.heappop(self._ready)[2] if self._ready else None

    def finish(self, node: str) -> None:
        """The node has run: what waited for it alone becomes ready."""
        del self._waiting_for[node]
        self._done.add(node)
        for consumer in self._consumers.pop(node, ()):
            waiting = self._waiting_for[consumer]
            waiting.discard(node)
            if not waiting:
                self._push(consumer)
