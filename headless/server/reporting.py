"""Tells a browser tab how its prompt gets on, and keeps for the history what it came to."""

from __future__ import annotations

import traceback
from typing import Any

from torch import Tensor

from ...core.errors import KintsugiError
from ...core.graph.events import NodeFailure
from .host import preview_jpeg
from .hub import Hub
from .jobs import Job
from .messages import Message, Preview, Text, now, plain
from .places import Places

# The page draws what runs; of what is done it needs only the latest, and a prompt may have ten thousand nodes.
MOST_SHOWN_DONE = 100


class Reporter:
    """The events of one job's run, as messages. Called on the worker's thread; `present` may be read from any."""

    def __init__(self, job: Job, hub: Hub, preview_size: int) -> None:
        self._job, self._hub, self._preview_size = job, hub, preview_size
        self._places = Places(frozenset(job.prompt))
        self._nodes: dict[str, dict[str, Any]] = {}
        self._done: list[str] = []
        self._executing: Text | None = None
        self._state: Text | None = None

    @property
    def present(self) -> list[Message]:
        """What a tab that was reloaded has to be told: that it runs, without which it offers no cancelling, where, and how far."""
        executing, state = self._executing, self._state
        return [] if executing is None or state is None else [Text("execution_start", self._stamp()), executing, state]

    def execution_start(self) -> None:
        self._record("execution_start")

    def execution_cached(self, nodes: list[str]) -> None:
        self._record("execution_cached", nodes=nodes)

    def executing(self, node: str) -> None:
        self._executing = Text("executing", {"node": node, "display_node": self._places.of(node).display, **self._of_prompt()})
        self._set(node, 0, 1, "running")
        self._post(self._executing)

    def executed(self, node: str, ui: dict[str, list[Any]]) -> None:
        place, shown = self._places.of(node), plain(ui)
        self._job.ui[node], self._job.meta[node] = shown, place.as_metadata()
        self._post(Text("executed", {"node": node, "display_node": place.display, "output": shown, **self._of_prompt()}))

    def finished(self, node: str) -> None:
        total = self._nodes[node]["max"] if node in self._nodes else 1
        self._done.append(node)
        self._set(node, total, total, "finished")

    def progress(self, node: str, value: int, total: int, preview: Tensor | None) -> None:
        self._set(node, value, total, "running")
        self._post(Text("progress", {"value": value, "max": total, "node": node, **self._of_prompt()}, key="progress"))
        if preview is not None:
            self._post(Preview(preview_jpeg(preview, self._preview_size), self._places.of(node).of_prompt(self._job.id)))

    def execution_error(self, failure: NodeFailure) -> None:
        """A node that was blocked with a message is told of as well; then the run goes on, and the job does not fail for it."""
        told = _told(failure) | {"executed": list(self._done), "current_inputs": {}, "current_outputs": [], **self._stamp()}
        self._set(failure.node_id, 0, 1, "error")
        if failure.exception is None:
            self._post(Text("execution_error", told))
        else:
            self.fail(told)

    def execution_interrupted(self, node: str | None) -> None:
        class_type = self._job.prompt.get(node, {}).get("class_type") if node is not None else None
        self._record("execution_interrupted", node_id=node, node_type=class_type, executed=list(self._done))

    def execution_success(self) -> None:
        self._record("execution_success")

    def crash(self, message: str, kind: str) -> None:
        """The run itself could not go on, for no fault of one node."""
        self.fail(_error("", "", message, kind, []) | {"executed": list(self._done), **self._stamp()})

    def fail(self, told: dict[str, Any]) -> None:
        """The job has failed, and this is why."""
        self._job.error = told
        self._job.messages.append(("execution_error", told))
        self._post(Text("execution_error", told))

    def end(self) -> None:
        """The last word about this prompt: nothing runs any more."""
        self._executing = self._state = None
        self._post(Text("executing", {"node": None, **self._of_prompt()}))

    def _record(self, kind: str, **data: Any) -> None:
        told = {**data, **self._stamp()}
        self._job.messages.append((kind, told))
        self._post(Text(kind, told))

    def _of_prompt(self) -> dict[str, str]:
        return {"prompt_id": self._job.id}

    def _stamp(self) -> dict[str, Any]:
        return {**self._of_prompt(), "timestamp": now()}

    def _set(self, node: str, value: int, total: int, state: str) -> None:
        self._nodes[node] = {"value": value, "max": total, "state": state, **self._places.of(node).of_prompt(self._job.id)}
        if len(self._done) > MOST_SHOWN_DONE:
            self._nodes.pop(self._done[-MOST_SHOWN_DONE - 1], None)
        self._state = Text("progress_state", {"nodes": dict(self._nodes), **self._of_prompt()}, key="progress_state")
        self._post(self._state)

    def _post(self, message: Message) -> None:
        if self._job.client_id is not None:
            self._hub.post(message, self._job.client_id)


def _told(failure: NodeFailure) -> dict[str, Any]:
    error = failure.exception
    kind = "ExecutionBlocked" if error is None else type(error).__name__
    lines = [] if error is None or isinstance(error, KintsugiError) else traceback.format_tb(error.__traceback__)
    return _error(failure.node_id, failure.class_type, failure.message, kind, lines)


def _error(node_id: str, class_type: str, message: str, kind: str, lines: list[str]) -> dict[str, Any]:
    return {"node_id": node_id, "node_type": class_type, "exception_message": message, "exception_type": kind, "traceback": lines}
