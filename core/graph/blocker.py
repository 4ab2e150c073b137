"""The value that stops a branch of the graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutionBlocker:
    """As an output: nodes that would receive it do not run and pass it on. A message is shown at the first such node.

    told: passed on by a node at which its message was shown.
    """

    message: str | None = None
    told: bool = False
