"""Running prompts of small nodes, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kintsugi.core.errors import Interrupted
from kintsugi.core.graph.executor import ExecutionResult, Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.runtime import LocalHost
from small_nodes import NODES, Recorder, node

REGISTRY = Registry(NODES)


def run(prompt: dict[str, Any], executor: Executor | None = None, **more: Any) -> tuple[ExecutionResult, Recorder]:
    recorder = Recorder()
    return (executor or Executor(REGISTRY)).run(prompt, events=recorder, **more), recorder


def shows(link: list[Any]) -> dict[str, Any]:
    return node("Show", value=link)


def texts(result: ExecutionResult, node_id: str = "end") -> list[str]:
    return result.ui[node_id]["text"]


ADDING = {"1": node("Number", value=3), "2": node("Add", a=["1", 0], b=4), "end": shows(["2", 0])}


@dataclass
class CancellingHost(LocalHost):
    """Says at the n-th look that the person cancelled."""

    after: int = 0
    looks: list[int] = field(default_factory=list)

    def check_interrupted(self) -> None:
        self.looks.append(1)
        if len(self.looks) > self.after:
            raise Interrupted
