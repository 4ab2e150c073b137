"""Workers that share the tasks of a job: this process, more processes of this machine, or actors of a Ray cluster.

A worker is an object of the job's own, a task one call of its methods. Which worker does a task shows in nothing but the time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, Self

from ..core.errors import BadValueError, KintsugiError, MissingPackageError
from ..core.runtime import current_host

Task = tuple[Any, ...]
# Makes worker number n, from 0, in the place where it will work; it goes there as a pickle.
Recruit = Callable[[int], Any]
Answer = tuple[Any, KintsugiError | None]

LOCAL = "local"
SECONDS_BETWEEN_CHECKS, SECONDS_FOR_AN_ANSWER, SECONDS_TO_LEAVE = 0.2, 10, 10
WAY_OUT = "What is finished is kept: go on with --resume, with fewer --workers if the memory was short."


class Team(Protocol):
    """Some workers, for the time of a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def each(self, method: str) -> list[Any]:
        """What every worker answers to a call without arguments."""

    def map(self, method: str, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        """(place of the task, answer) as they are finished; a task is taken when a worker is idle.

        A KintsugiError of a worker is raised here, and so is one when a worker is lost.
        """


def in_order(answers: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """The answers of map() in the order of their tasks."""
    early: dict[int, Any] = {}
    following = 0
    for place, answer in answers:
        early[place] = answer
        while following in early:
            yield early.pop(following)
            following += 1


class Alone:
    """A team of one, in this process and on its host."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def each(self, method: str) -> list[Any]:
        return [getattr(self._worker, method)()]

    def map(self, method: str, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        for place, task in enumerate(tasks):
            yield place, getattr(self._worker, method)(*task)


class Post:
    """Where a worker works elsewhere. It is made at the first task, so that what it raises then is an answer too."""

    def __init__(self, recruit: Recruit, number: int) -> None:
        self._recruit, self._number = recruit, number
        self._worker: Any = None

    def answer(self, method: str, task: Task) -> Answer:
        """What the worker's method gives, or the error that a person is to read."""
        try:
            if self._worker is None:
                self._worker = self._recruit(self._number)
            return getattr(self._worker, method)(*task), None
        except KintsugiError as error:
            return None, error


class Member(Protocol):
    """A worker elsewhere, with one task at a time."""

    def send(self, method: str, task: Task) -> None:
        """Let it begin."""

    def receive(self) -> Answer:
        """Its answer, which is there. Both raise KintsugiError when the worker is lost."""


class Crew(ABC):
    """A team elsewhere, wherever that is."""

    members: Sequence[Member] = ()

    def each(self, method: str) -> list[Any]:
        """See Team: of as many tasks as there are workers every one gets one."""
        return list(in_order(self.map(method, [()] * len(self.members))))

    def map(self, method: str, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        """See Team."""
        waiting, idle = enumerate(tasks), list(self.members)
        busy: dict[Member, int] = {}
        answers: list[tuple[int, Any]] = []
        while True:
            # Everyone has work again before anyone looks at the answers.
            while idle and (following := next(waiting, None)):
                member = idle.pop(0)
                member.send(method, following[1])
                busy[member] = following[0]
            yield from answers
            if not busy:
                return
            finished = self._finished(list(busy))
            answers = [(busy.pop(member), _given(member.receive())) for member in finished]
            idle += finished

    def _finished(self, busy: Sequence[Member]) -> Sequence[Member]:
        while not (finished := self.ready(busy)):
            current_host().check_interrupted()
        return finished

    @abstractmethod
    def ready(self, busy: Sequence[Any]) -> Sequence[Member]:
        """Those of the members with an answer; none after SECONDS_BETWEEN_CHECKS."""


def _given(answer: Answer) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value


class Processes(Crew):
    """More processes of this machine. They leave with this one, however it ends."""

    def __init__(self, recruit: Recruit, count: int) -> None:
        self._recruit, self._count = recruit, count
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        self._processes = [_Process(self._recruit, number) for number in range(self._count)]
        self.members = self._processes
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._processes:
            member.process.terminate()
        for member in self._processes:
            member.process.join(SECONDS_TO_LEAVE)
            member.process.kill()
            member.process.join()

    def ready(self, busy: Sequence[_Process]) -> Sequence[Member]:
        there = wait([member.connection for member in busy], SECONDS_BETWEEN_CHECKS)
        return [member for member in busy if member.connection in there]


class _Process:
    def __init__(self, recruit: Recruit, number: int) -> None:
        # CUDA forbids forks.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(recruit, number, theirs), daemon=True)
        self.process.start()
        theirs.close()

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

    def _lost(self) -> KintsugiError:
        self.process.join()
        return KintsugiError(f"a worker process was lost (exit code {self.process.exitcode}).", way_out=WAY_OUT)


def _work(recruit: Recruit, number: int, connection: Connection) -> None:
    """The life of a worker process: tasks until the other end of the connection is gone."""
    # Ctrl-C reaches the whole group; the first process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An end at once would leave semaphores behind, which Python complains of.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    post = Post(recruit, number)
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


class OnRay(Crew):
    """Actors of a Ray cluster, spread over its machines, each with a GPU of its own where there are any.

    address: as ray.init() takes it; `local` begins a cluster on this machine. count: None is one for every GPU, else one.
    """

    def __init__(self, recruit: Recruit, address: str, count: int | None) -> None:
        """Raises MissingPackageError without Ray."""
        if find_spec("ray") is None:
            raise MissingPackageError(
                "the package ray is not installed.", way_out="Install kintsugi-restoration[cluster], or use --workers on this machine."
            )
        self._recruit, self._address, self._count = recruit, address, count

    def __enter__(self) -> Self:
        import ray

        # Ray tells its makers about clusters that it begins, unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _require_answer(self._address)
            ray.init(address=None if self._address == LOCAL else self._address, include_dashboard=False, log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise BadValueError(
                f"no Ray cluster can be reached ({error}).", where=f"--ray {self._address}", way_out="Give HOST:PORT, auto or local."
            ) from error
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = self._count or max(gpus, 1)
        if 0 < gpus < count:
            ray.shutdown()
            raise BadValueError(f"{count} workers, and the cluster has {gpus} GPUs.", where="--workers", way_out="Ask for fewer.")
        place = ray.remote(num_cpus=0, num_gpus=min(gpus, 1), scheduling_strategy="SPREAD")(Post)
        self.members = [_Actor(place.remote(self._recruit, number)) for number in range(count)]
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def ready(self, busy: Sequence[_Actor]) -> Sequence[Member]:
        import ray

        there, _ = ray.wait([member.answer for member in busy], timeout=SECONDS_BETWEEN_CHECKS)
        return [member for member in busy if member.answer in there]


def _require_answer(address: str) -> None:
    """Raise OSError where HOST:PORT does not answer: Ray itself would wait for it for ever."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), SECONDS_FOR_AN_ANSWER).close()


class _Actor:
    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.answer: Any = None

    def send(self, method: str, task: Task) -> None:
        self.answer = self._handle.answer.remote(method, task)

    def receive(self) -> Answer:
        import ray

        try:
            answer: Answer = ray.get(self.answer)
        except ray.exceptions.RayError as error:
            raise KintsugiError(f"a worker was lost ({type(error).__name__}).", way_out=WAY_OUT) from error
        return answer
