"""A team of actors of a Ray cluster."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import TextIOBase
from typing import Any, Self, TextIO, cast

from ...core.errors import BadValueError, MissingPackageError
from .crew import SECONDS_BETWEEN_CHECKS, WAY_OUT, Crew, Member, Task, WorkerLostError
from .post import Answer, Post, Recruit

LOCAL = "local"
SECONDS_FOR_AN_ANSWER = 10


class OnRay(Crew):
    """Actors spread over the machines of a cluster, each with a GPU of its own where there are any.

    address: as ray.init() takes it; `local` begins a cluster on this machine. count: None is one for every GPU, else one. lanes: how
    many tasks each has at once, so that no more pictures than that lie in the cluster's memory for it.
    """

    def __init__(self, recruit: Recruit, address: str, count: int | None, lanes: int = 1) -> None:
        """Raises MissingPackageError without Ray."""
        if find_spec("ray") is None:
            raise MissingPackageError(
                "the package ray is not installed.", way_out="Install kintsugi-restoration[cluster], or use --workers on this machine."
            )
        self._recruit, self._address, self._count, self._lanes = recruit, address, count, lanes
        self._own_lines = redirect_stdout(cast(TextIO, _OwnLines(sys.stdout)))

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
        actor: Any = ray.remote(Post)
        place = actor.options(num_cpus=0, num_gpus=min(gpus, 1), scheduling_strategy="SPREAD", max_concurrency=self._lanes)
        workers = [_Actor(place, self._recruit, number) for number in range(count)]
        self.members = [_Lane(worker) for _ in range(self._lanes) for worker in workers]
        self._own_lines.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        self._own_lines.__exit__(None, None, None)

    def ready(self, busy: Sequence[_Lane]) -> Sequence[Member]:
        import ray

        there, _ = ray.wait([lane.answer for lane in busy], timeout=SECONDS_BETWEEN_CHECKS)
        return [lane for lane in busy if lane.answer in there]


class _OwnLines(TextIOBase):
    """Ray prints what happens to workers from a thread of its own, where results are read by machines: to stderr with it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return (self._stream if threading.get_ident() == self._thread else sys.stderr).write(text)

    def flush(self) -> None:
        self._stream.flush()


def _require_answer(address: str) -> None:
    """Raise OSError where HOST:PORT does not answer: Ray itself would wait for it for ever."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), SECONDS_FOR_AN_ANSWER).close()


class _Actor:
    """handle: of the actor that works now."""

    def __init__(self, place: Any, recruit: Recruit, number: int) -> None:
        self._place, self._recruit, self._number = place, recruit, number
        self.start()

    def start(self) -> None:
        self.handle = self._place.remote(self._recruit, self._number)


class _Lane:
    answer: Any

    def __init__(self, worker: _Actor) -> None:
        self.worker, self._handle = worker, worker.handle

    def send(self, method: str, task: Task) -> None:
        self.answer = self._handle.answer.remote(method, task)

    def receive(self) -> Answer:
        import ray

        try:
            answer: Answer = ray.get(self.answer)
        except ray.exceptions.RayError as error:
            raise WorkerLostError(f"a worker was lost ({type(error).__name__}).", way_out=WAY_OUT) from error
        return answer

    def replace(self) -> None:
        if self._handle is self.worker.handle:
            self.worker.start()
        self._handle = self.worker.handle
