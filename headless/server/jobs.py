"""Prompts that wait, the one that runs, and those that are done. Shared by the event loop and the worker's thread."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pending", "in_progress", "completed", "failed", "cancelled"]
MOST_FINISHED = 10_000


@dataclass
class Job:
    """One prompt on its way through the server.

    number: place in the queue, smaller ones first. outputs: ids of its output nodes that can run. Times are milliseconds
    since 1970. ui: what nodes showed, meta: where each of those nodes stands in the graph, both by node id. messages: the
    events of its run, as history tells them. error: why it failed, as the page is told. stop: set when it is to end.
    """

    id: str
    number: float
    prompt: dict[str, Any]
    outputs: list[str]
    extra_data: dict[str, Any]
    client_id: str | None
    create_time: int
    node_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: Status = "pending"
    start_time: int | None = None
    end_time: int | None = None
    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)


class JobStore:
    """Every job by id. Jobs run in the order of their numbers, equal ones in the order they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: list[Job] = []
        self._running: Job | None = None
        self._finished: dict[str, Job] = {}
        self._woken = False

    def add(self, job: Job) -> bool:
        """Queue it; False when there is a job of this id already."""
        with self._changed:
            if self._find(job.id) is not None:
                return False
            insort(self._pending, job, key=lambda each: each.number)
            self._changed.notify()
            return True

    def take(self) -> Job | None:
        """Waits for the next job, which is now the running one; None when wake() was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._woken)
            if self._woken:
                self._woken = False
                return None
            job = self._running = self._pending.pop(0)
            job.status = "in_progress"
            return job

    def wake(self) -> None:
        """Let take() return without a job."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def finish(self, job: Job, status: Status) -> None:
        """The running job is done. The oldest finished ones are forgotten beyond MOST_FINISHED."""
        with self._changed:
            job.status, self._running = status, None
            self._finished[job.id] = job
            while len(self._finished) > MOST_FINISHED:
                del self._finished[next(iter(self._finished))]

    @property
    def running(self) -> Job | None:
        """The job at work."""
        return self._running

    @property
    def remaining(self) -> int:
        """How many jobs wait or run."""
        with self._changed:
            return len(self._pending) + (self._running is not None)

    def pending(self) -> list[Job]:
        """Jobs that wait, the next one first."""
        with self._changed:
            return list(self._pending)

    def finished(self) -> list[Job]:
        """Jobs that are done, the oldest first."""
        with self._changed:
            return list(self._finished.values())

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        with self._changed:
            running = [] if self._running is None else [self._running]
            known = [*self._finished.values(), *running, *self._pending]
        return sorted(known, key=lambda job: job.create_time, reverse=True)

    def get(self, job_id: str) -> Job | None:
        """The job of that id."""
        with self._changed:
            return self._find(job_id)

    def interrupt(self, job_id: str | None = None) -> bool:
        """Ask the running job to end, if it is this one (any without an id); False when there is none to ask."""
        with self._changed:
            if self._running is None or job_id not in (None, self._running.id):
                return False
            self._running.stop.set()
            return True

    def drop_pending(self, job_ids: Collection[str] | None = None) -> int:
        """Forget these waiting jobs, or all; how many there were."""
        with self._changed:
            kept = [] if job_ids is None else [job for job in self._pending if job.id not in job_ids]
            dropped = len(self._pending) - len(kept)
            self._pending = kept
            return dropped

    def drop_finished(self, job_ids: Collection[str] | None = None) -> None:
        """Forget these finished jobs, or all."""
        with self._changed:
            for job_id in list(self._finished) if job_ids is None else job_ids:
                self._finished.pop(job_id, None)

    def _find(self, job_id: str) -> Job | None:
        if self._running is not None and self._running.id == job_id:
            return self._running
        return self._finished.get(job_id) or next((job for job in self._pending if job.id == job_id), None)
