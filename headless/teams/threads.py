"""A team in this process and on its host: one worker, and as many threads as may be at it at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, Self

from .crew import SECONDS_BETWEEN_CHECKS, Crew, Member, Task
from .post import Answer, Post


class Threads(Crew):
    """lanes: how many tasks the worker has at once; more than one needs a worker that threads may share."""

    def __init__(self, worker: Any, lanes: int = 1) -> None:
        self._post, self._lanes = Post(lambda _: worker, 0), lanes

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._lanes, "kintsugi-lane")
        self.members = [_Lane(self._post, self._pool) for _ in range(self._lanes)]
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def ready(self, busy: Sequence[_Lane]) -> Sequence[Member]:
        there, _ = wait([lane.answer for lane in busy], SECONDS_BETWEEN_CHECKS, FIRST_COMPLETED)
        return [lane for lane in busy if lane.answer in there]


class _Lane:
    answer: Future[Answer]

    def __init__(self, post: Post, pool: ThreadPoolExecutor) -> None:
        self.worker, self._pool = post, pool

    def send(self, method: str, task: Task) -> None:
        self.answer = self._pool.submit(copy_context().run, self.worker.answer, method, task)

    def receive(self) -> Answer:
        return self.answer.result()

    def replace(self) -> None:
        """A thread is not lost without its process."""
