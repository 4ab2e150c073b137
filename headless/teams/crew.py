"""Tasks shared by the members of a team: each has one at a time, and what a lost worker had is done again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ...core.errors import BadValueError, KintsugiError
from ...core.runtime import current_host
from .post import Answer

Task = tuple[Any, ...]
GivenUp = Callable[[KintsugiError], Any]

SECONDS_BETWEEN_CHECKS = 0.2
# A task that was lost so often ends workers itself.
ATTEMPTS = 3
WAY_OUT = "What is finished is kept: go on with --resume, with fewer --workers if the memory was short."


class WorkerLostError(KintsugiError):
    """A worker ended without an answer: killed, out of memory, or its machine is gone."""


class Team(Protocol):
    """Some workers, for the time of a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def each(self, method: str) -> list[Any]:
        """What every member answers to a call without arguments."""

    def map(self, method: str, tasks: Iterable[Task], given_up: GivenUp | None = None) -> Iterator[tuple[int, Any]]:
        """(place of the task, answer) as they are finished; a task is taken when a member is idle.

        A KintsugiError of a worker is raised here. A task whose worker is lost is done again; given_up: makes its answer after some
        attempts, without it the loss is raised.
        """


class Member(Protocol):
    """One who does one task at a time. worker: whoever shares it has the same object; they are lost together."""

    @property
    def worker(self) -> object: ...

    def send(self, method: str, task: Task) -> None:
        """Let it begin."""

    def receive(self) -> Answer:
        """Its answer, which is there. Both raise WorkerLostError."""

    def replace(self) -> None:
        """After a loss: work with a new worker, which is made unless another member has done so."""


@dataclass
class _Assignment:
    place: int
    task: Task
    losses: int = 0


class Crew(ABC):
    """A team of any kind of members."""

    members: Sequence[Member] = ()

    def each(self, method: str) -> list[Any]:
        """See Team: of as many tasks as there are members every one gets one."""
        return list(in_order(self.map(method, [()] * len(self.members))))

    def map(self, method: str, tasks: Iterable[Task], given_up: GivenUp | None = None) -> Iterator[tuple[int, Any]]:
        """See Team."""
        shift = _Shift(self.members, method, tasks, given_up)
        answers: list[tuple[int, Any]] = []
        while True:
            # Everyone has work again before anyone looks at the answers.
            shift.assign()
            yield from answers
            if not shift.busy:
                return
            answers = shift.collect(self._finished(list(shift.busy)))

    def _finished(self, busy: Sequence[Member]) -> Sequence[Member]:
        while not (finished := self.ready(busy)):
            current_host().check_interrupted()
        return finished

    @abstractmethod
    def ready(self, busy: Sequence[Any]) -> Sequence[Member]:
        """Those of the members with an answer or lost; none after SECONDS_BETWEEN_CHECKS."""


class _Shift:
    """The work of one call of map()."""

    def __init__(self, members: Sequence[Member], method: str, tasks: Iterable[Task], given_up: GivenUp | None) -> None:
        self.busy: dict[Member, _Assignment] = {}
        self._idle = list(members)
        self._method, self._given_up = method, given_up
        self._waiting, self._again = enumerate(tasks), deque[_Assignment]()

    def assign(self) -> None:
        """Give everyone who is idle something to do, as far as there is something."""
        for member in tuple(self._idle):
            assignment = self._next_for(member)
            if assignment is not None:
                self._idle.remove(member)
                self.busy[member] = assignment
                self._send(member, assignment)

    def _next_for(self, member: Member) -> _Assignment | None:
        """A task that was lost is done again alone on its worker, so that it does not take others with it a second time."""
        beside = [assignment for mate, assignment in self.busy.items() if mate.worker is member.worker]
        if any(assignment.losses for assignment in beside):
            return None
        if self._again:
            return None if beside else self._again.popleft()
        following = next(self._waiting, None)
        return None if following is None else _Assignment(*following)

    def _send(self, member: Member, assignment: _Assignment) -> None:
        try:
            member.send(self._method, assignment.task)
        except WorkerLostError:
            member.replace()
            member.send(self._method, assignment.task)

    def collect(self, finished: Sequence[Member]) -> list[tuple[int, Any]]:
        """Their answers; whoever was lost is replaced."""
        answers = []
        for member in finished:
            assignment = self.busy.pop(member)
            self._idle.append(member)
            try:
                answers.append((assignment.place, _given(member.receive())))
            except WorkerLostError as lost:
                member.replace()
                assignment.losses += 1
                if assignment.losses < ATTEMPTS:
                    self._again.append(assignment)
                elif self._given_up is None:
                    raise
                else:
                    answers.append((assignment.place, self._given_up(lost)))
        return answers


def _given(answer: Answer) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value


def in_order(answers: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """The answers of map() in the order of their tasks."""
    early: dict[int, Any] = {}
    following = 0
    for place, answer in answers:
        early[place] = answer
        while following in early:
            yield early.pop(following)
            following += 1


def agreed(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What all workers found. Raises BadValueError where they differ."""
    first = found[0]
    for other in found[1:]:
        for name, value in first.items():
            if other[name] != value:
                raise BadValueError(
                    f"one worker has {name} {value}, another {other[name]}: their pictures would differ.",
                    where="--workers",
                    way_out="Let all machines have the same weights, packages and devices.",
                )
    return first
