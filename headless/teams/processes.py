"""A team of more processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Self

from .crew import SECONDS_BETWEEN_CHECKS, WAY_OUT, Crew, Member, Task, WorkerLostError
from .post import Answer, Post, Recruit

SECONDS_TO_LEAVE = 10


class Processes(Crew):
    """They leave with this process, however it ends. lanes: how many tasks each has at once, on threads of its own."""

    def __init__(self, recruit: Recruit, count: int, lanes: int = 1) -> None:
        self._recruit, self._count, self._lanes = recruit, count, lanes
        self._workers: list[_Process] = []

    def __enter__(self) -> Self:
        self._workers = [_Process(self._recruit, number, self._lanes) for number in range(self._count)]
        # Every process has its first task before any has its second.
        self.members = [_Lane(worker, number) for number in range(self._lanes) for worker in self._workers]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.end()

    def ready(self, busy: Sequence[_Lane]) -> Sequence[Member]:
        there = wait([lane.connection for lane in busy], SECONDS_BETWEEN_CHECKS)
        return [lane for lane in busy if lane.connection in there]


class _Process:
    """connections: of its lanes, those of the process that runs now. exit_code: of the last one that ended."""

    exit_code: int | None = None

    def __init__(self, recruit: Recruit, number: int, lanes: int) -> None:
        self._recruit, self._number, self._lanes = recruit, number, lanes
        self.start()

    def start(self) -> None:
        # CUDA forbids forks.
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(self._lanes)]
        self.connections = [ours for ours, _ in pipes]
        self.process = context.Process(target=_work, args=(self._recruit, self._number, [theirs for _, theirs in pipes]), daemon=True)
        self.process.start()
        for _, theirs in pipes:
            theirs.close()

    def end(self) -> None:
        self.process.join(SECONDS_TO_LEAVE)
        self.process.kill()
        self.process.join()
        self.exit_code = self.process.exitcode


class _Lane:
    def __init__(self, worker: _Process, number: int) -> None:
        self.worker, self._number = worker, number
        self.connection = worker.connections[number]

    def send(self, method: str, task: Task) -> None:
        try:
            self.connection.send((method, task))
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> Answer:
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        return answer

    def _lost(self) -> WorkerLostError:
        if self.connection is self.worker.connections[self._number]:
            self.worker.end()
        return WorkerLostError(f"a worker process was lost (exit code {self.worker.exit_code}).", way_out=WAY_OUT)

    def replace(self) -> None:
        if self.connection is self.worker.connections[self._number]:
            self.worker.end()
            self.worker.start()
        self.connection.close()
        self.connection = self.worker.connections[self._number]


def _work(recruit: Recruit, number: int, connections: list[Connection]) -> None:
    """The life of a worker process: tasks until the other ends of the connections are gone."""
    # Ctrl-C reaches the whole group; the first process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An end at once would leave semaphores behind, which Python complains of.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    post = Post(recruit, number)
    for connection in connections[1:]:
        threading.Thread(target=_serve, args=(post, connection), daemon=True).start()
    _serve(post, connections[0])


def _serve(post: Post, connection: Connection) -> None:
    while True:
        try:
            method, task = connection.recv()
        except EOFError:
            return
        connection.send(post.answer(method, task))


def _leave_with_parent() -> None:
    """At once, even in the middle of a task: whoever starts the job again needs the memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
