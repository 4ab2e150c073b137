"""Coroutine nodes at work beside the others, on an event loop that the run owns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ..runtime import current_host

_LOOK_UP_SECONDS = 0.1


class AsyncCalls:
    """They advance when they start and while the run has nothing else to do. The loop is made at the first one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[asyncio.Task[list[Any]], str] = {}

    def __bool__(self) -> bool:
        """True while one is unfinished."""
        return bool(self._tasks)

    def start(self, node_id: str, work: Coroutine[Any, Any, list[Any]]) -> None:
        """Begins a node's work, in a copy of the current context."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._tasks[self._loop.create_task(work)] = node_id
        self._loop.run_until_complete(asyncio.sleep(0))

    def wait(self) -> list[tuple[str, asyncio.Task[list[Any]]]]:
        """(node id, finished task) of those that are done, once one is. Raises Interrupted when the person cancels."""
        assert self._loop is not None
        while True:
            waiting = asyncio.wait(self._tasks, timeout=_LOOK_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finished, _ = self._loop.run_until_complete(waiting)
            if finished:
                return [(self._tasks.pop(task), task) for task in list(self._tasks) if task in finished]
            current_host().check_interrupted()

    def close(self) -> None:
        """Cancels what is unfinished and lets it clean up."""
        if self._loop is None:
            return
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            self._loop.run_until_complete(asyncio.wait(self._tasks))
        self._loop.close()
