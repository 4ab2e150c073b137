"""What a run tells while it goes on, and which node is running now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class NodeFailure:
    """A node that could not do its work. title: what the person sees on it. message: for the person."""

    node_id: str
    class_type: str
    title: str
    exception: Exception | None
    message: str


class Events(Protocol):
    """Called on the thread of the run. `running_node()` tells more about the node while any of these is called for one."""

    def execution_start(self) -> None:
        """A prompt begins."""

    def execution_cached(self, nodes: list[str]) -> None:
        """These nodes keep what they gave before."""

    def executing(self, node: str) -> None:
        """The node begins."""

    def executed(self, node: str, ui: dict[str, list[Any]]) -> None:
        """The node is done; ui: what it shows."""

    def finished(self, node: str) -> None:
        """The node has run, and with it what it may have been expanded to."""

    def progress(self, node: str, value: int, total: int, preview: Tensor | None) -> None:
        """The node has done `value` of `total`; preview: a picture [H, W, 3] in 0..1."""

    def execution_error(self, failure: NodeFailure) -> None:
        """Also for a node that was blocked with a message, after which the run goes on."""

    def execution_interrupted(self, node: str | None) -> None:
        """The person stopped it, while this node ran."""

    def execution_success(self) -> None:
        """Every node is done."""


class SilentEvents:
    """Tells nobody. Also a base for listeners that want some events only."""

    def execution_start(self) -> None:
        return None

    def execution_cached(self, nodes: list[str]) -> None:
        return None

    def executing(self, node: str) -> None:
        return None

    def executed(self, node: str, ui: dict[str, list[Any]]) -> None:
        return None

    def finished(self, node: str) -> None:
        return None

    def progress(self, node: str, value: int, total: int, preview: Tensor | None) -> None:
        return None

    def execution_error(self, failure: NodeFailure) -> None:
        return None

    def execution_interrupted(self, node: str | None) -> None:
        return None

    def execution_success(self) -> None:
        return None


@dataclass(frozen=True)
class RunningNode:
    """The node at work. display_id: the node a person sees; parent_id: the node whose expansion made it."""

    node_id: str
    class_type: str
    display_id: str
    parent_id: str | None
    events: Events

    def report(self, value: int, total: int, preview: Tensor | None = None) -> None:
        """For `Host.progress`: `value` of `total` steps are done; preview [H, W, 3] in 0..1."""
        self.events.progress(self.node_id, value, total, preview)


_running: ContextVar[RunningNode | None] = ContextVar("kintsugi_running_node", default=None)


def running_node() -> RunningNode | None:
    """The node whose code is running in this context; None outside a run."""
    return _running.get()


@contextmanager
def running(node: RunningNode) -> Iterator[None]:
    """Inside the block this is the node that runs."""
    token = _running.set(node)
    try:
        yield
    finally:
        _running.reset(token)
