"""What is remembered between runs and for how long, and that a run's own work grows linearly."""

from __future__ import annotations

from typing import Any

import pytest
from kintsugi.core.graph import signatures
from kintsugi.core.graph.cache import LruCache, NoCache
from kintsugi.core.graph.executor import Executor
from running_prompts import ADDING, REGISTRY, run, shows, texts
from small_nodes import node


@pytest.fixture
def executor() -> Executor:
    return Executor(REGISTRY)


def test_second_run_is_cached_and_still_tells_what_outputs_show(executor: Executor) -> None:
    run(ADDING, executor)
    result, recorder = run(ADDING, executor)
    assert recorder.ran == [] and texts(result) == ["7"]
    assert recorder.told[1] == ("cached", ["1", "2", "end"]) and ("executed", "end", {"text": ["7"]}) in recorder.told


def test_change_runs_only_what_follows_it(executor: Executor) -> None:
    run(ADDING, executor)
    assert run(ADDING | {"2": node("Add", a=["1", 0], b=5)}, executor)[1].ran == ["2", "end"]


def test_node_ids_are_not_part_of_the_key(executor: Executor) -> None:
    run(ADDING, executor)
    renamed = {"a": node("Number", value=3), "b": node("Add", a=["a", 0], b=4), "c": shows(["b", 0])}
    assert run(renamed, executor)[1].ran == []


def test_link_topology_is_part_of_the_key(executor: Executor) -> None:
    numbers = {"1": node("Number", value=1), "2": node("Number", value=2)}
    first = numbers | {"3": node("Add", a=["1", 0], b=["2", 0]), "end": shows(["3", 0])}
    run(first, executor)
    assert run(first | {"3": node("Add", a=["2", 0], b=["1", 0])}, executor)[1].ran == ["3", "end"]


def test_equal_nodes_of_one_prompt_run_once() -> None:
    prompt = {"1": node("Number", value=1), "2": node("Number", value=1), "3": node("Add", a=["1", 0], b=["2", 0]), "end": shows(["3", 0])}
    result, recorder = run(prompt)
    assert texts(result) == ["2"] and len(recorder.ran) == 3


def test_only_the_last_prompt_is_kept_by_default(executor: Executor) -> None:
    other = {"9": node("Number", value=9), "end": shows(["9", 0])}
    run(ADDING, executor)
    run(other, executor)
    assert len(run(ADDING, executor)[1].ran) == 3


def test_lru_keeps_earlier_prompts_up_to_its_size() -> None:
    other = {"9": node("Number", value=9), "end": shows(["9", 0])}
    for size, reruns in ((10, 0), (2, 3)):
        executor = Executor(REGISTRY, LruCache(size))
        run(ADDING, executor)
        run(other, executor)
        assert len(run(ADDING, executor)[1].ran) == reruns


def test_no_cache_runs_everything_again() -> None:
    executor = Executor(REGISTRY, NoCache())
    assert len(run(ADDING, executor)[1].ran) == len(run(ADDING, executor)[1].ran) == 3


@pytest.mark.parametrize("how", ["nan", "fails"])
def test_is_changed_that_is_nan_or_fails_runs_always(how: str, executor: Executor) -> None:
    prompt = {"1": node("Always", how=how), "2": node("Add", a=["1", 0]), "end": shows(["2", 0])}
    run(prompt, executor)
    assert run(prompt, executor)[1].ran == ["1", "2", "end"]


def test_unique_id_counts_in_the_key(executor: Executor) -> None:
    run({"1": node("Hidden")}, executor)
    assert run({"1": node("Hidden")}, executor)[1].ran == []
    assert run({"2": node("Hidden")}, executor)[1].ran == ["2"]


def test_not_idempotent_nodes_do_not_share_results() -> None:
    prompt = {
        "1": node("Counting", value=1),
        "2": node("Counting", value=1),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "end": shows(["3", 0]),
    }
    assert run(prompt)[1].ran[:2] == ["1", "2"]


def test_instances_live_as_long_as_their_node_id(executor: Executor) -> None:
    def counted(value: int) -> str:
        return texts(run({"1": node("Counting", value=value), "end": shows(["1", 0])}, executor)[0])[0]

    assert [counted(1), counted(2), counted(3)] == ["1", "2", "3"]
    run(ADDING, executor)
    assert counted(4) == "1"


def test_failed_run_keeps_what_was_done(executor: Executor) -> None:
    broken = {
        "1": node("Number", value=3),
        "2": node("Fail", message="no"),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "end": shows(["3", 0]),
    }
    run(broken, executor)
    assert run(broken | {"2": node("Number", value=1)}, executor)[1].ran == ["2", "3", "end"]


def test_each_node_is_hashed_once_however_deep_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []

    def counting(*arguments: Any, **options: Any) -> Any:
        hashes.append(1)
        return original(*arguments, **options)

    original = signatures.blake2b
    monkeypatch.setattr(signatures, "blake2b", counting)
    counts = []
    for length in (50, 500):
        hashes.clear()
        run(chain(length))
        counts.append(len(hashes))
    assert counts == [52, 502]


def test_work_of_a_chain_and_of_its_cached_rerun_grows_linearly(executor: Executor) -> None:
    """Function calls, counted by the interpreter, instead of seconds."""
    counts = {}
    for length in (100, 1000):
        own = Executor(REGISTRY)
        counts[length] = [calls_during(lambda own=own, length=length: own.run(chain(length))) for _ in range(2)]
    for few, many in zip(counts[100], counts[1000], strict=True):
        assert many < 10.5 * few


def chain(length: int) -> dict[str, Any]:
    adding = {str(index): node("Add", a=[str(index - 1), 0], b=1) for index in range(1, length + 1)}
    return {"0": node("Number", value=0)} | adding | {"end": shows([str(length), 0])}


def calls_during(work: Any) -> int:
    """Function calls, Python's and built-in ones, made while work() runs."""
    import sys

    count = 0

    def counting(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
