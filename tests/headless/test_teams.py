"""Teams of workers: the same answers wherever they work, and nobody left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from kintsugi.core.errors import BadValueError, Interrupted, KintsugiError, MissingPackageError
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.headless.teams import OnRay, Processes, Team, Threads, WorkerLostError, in_order, on_ray
from tiny_team import Absent, Squarer


@pytest.fixture(scope="module")
def processes() -> Iterator[Team]:
    with Processes(Squarer, 2) as team:
        yield team


@pytest.fixture(scope="module")
def threads() -> Iterator[Team]:
    with Threads(Squarer(0), lanes=2) as team:
        yield team


@pytest.fixture(scope="module")
def lanes() -> Iterator[Team]:
    with Processes(Squarer, 2, lanes=2) as team:
        yield team


@pytest.fixture(params=["threads", "processes", "lanes"])
def team(request: pytest.FixtureRequest) -> Team:
    made: Team = request.getfixturevalue(request.param)
    return made


def test_every_task_is_answered_once_whatever_the_order(team: Team) -> None:
    assert sorted(team.map("square", ((value,) for value in range(9)))) == [(value, value * value) for value in range(9)]
    assert list(team.map("square", [])) == []


def test_answers_are_put_in_the_order_of_their_tasks(team: Team) -> None:
    assert list(in_order(team.map("square", ((value,) for value in range(9))))) == [value * value for value in range(9)]


def test_each_member_is_asked_once(threads: Team, processes: Team, lanes: Team) -> None:
    assert threads.each("who") == [0, 0]
    assert processes.each("who") == [0, 1]
    assert lanes.each("who") == [0, 1, 0, 1]
    assert len({*lanes.each("process")}) == 2


def test_what_a_worker_refuses_is_refused_here(team: Team) -> None:
    with pytest.raises(BadValueError) as caught:
        list(team.map("refuse", [(3,)]))
    assert str(caught.value) == "worker 0: 3 has no square. Take another."
    assert (caught.value.what, caught.value.way_out) == ("3 has no square.", "Take another.")


def test_tasks_are_taken_when_a_worker_is_idle(processes: Team) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for value in range(5, 50):
            taken.append(value)
            yield (value,)

    answers = processes.map("square", tasks())
    next(answers)
    assert len(taken) <= 4
    assert len(list(answers)) == 44


def test_two_processes_work_at_once(processes: Team) -> None:
    assert len({*processes.each("process"), os.getpid()}) == 3
    places = [place for place, _ in processes.map("square", ((value,) for value in (0, 5, 6, 7)))]
    assert places[-1] == 0


def test_a_worker_that_cannot_be_made_tells_why() -> None:
    with Processes(Absent, 1) as team, pytest.raises(BadValueError, match=r"no place for worker 0\."):
        team.each("who")


def test_what_a_lost_worker_had_is_done_again_by_a_new_one(tmp_path: Path) -> None:
    with Processes(Squarer, 2, lanes=2) as team:
        tasks = [(value, str(tmp_path / "vanished") if value == 3 else "") for value in range(9)]
        before = team.each("process")
        assert sorted(team.map("square_or_vanish", tasks)) == [(value, value * value) for value in range(9)]
        assert len({*before, *team.each("process")}) == 3


def test_a_task_that_ends_every_worker_is_given_up_and_takes_no_other_with_it() -> None:
    def told(error: KintsugiError) -> str:
        return str(error)

    with Processes(Squarer, 1, lanes=2) as team:
        tasks = [(value, "always" if value == 3 else "") for value in range(6)]
        answers = dict(team.map("square_or_vanish", tasks, told))
        assert "a worker process was lost (exit code 7)" in answers.pop(3)
        assert answers == {value: value * value for value in (0, 1, 2, 4, 5)}
        with pytest.raises(WorkerLostError, match=r"exit code 7\)\. What is finished is kept"):
            team.each("vanish")
        assert team.each("who") == [0, 0]


class Cancelled(LocalHost):
    def check_interrupted(self) -> None:
        raise Interrupted


def test_cancelling_does_not_wait_for_the_task_and_leaves_nobody() -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted), Processes(Squarer, 1) as team:
        workers = team.each("process")
        with using_host(Cancelled(device=torch.device("cpu"))):
            team.each("sleep")
    assert time.monotonic() - began < 60
    assert not any(map(lives, workers))


def lives(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


BUSY = """
import sys
from kintsugi.headless.teams import Processes
from tiny_team import Squarer
if __name__ == "__main__":
    with Processes(Squarer, 1) as team:
        print(*team.each("process"), flush=True)
        team.each("sleep")
"""


def test_workers_leave_with_a_killed_parent_in_the_middle_of_a_task(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 1
    parent.kill()
    parent.wait(30)
    deadline = time.monotonic() + 30
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, workers))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"ray is not installed\. Install kintsugi-restoration\[cluster\]"):
        OnRay(Squarer, "local", None)


@pytest.mark.parametrize(("address", "fault"), [("127.0.0.1:1", "refused"), ("nonsense", "nonsense"), ("auto", "running Ray")])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, fault: str) -> None:
    with pytest.raises(BadValueError, match=f"--ray {address}: no Ray cluster can be reached .*{fault}"), OnRay(Squarer, address, None):
        pass
