"""Values that come from outside the prompt, and nodes that run in every run."""

from __future__ import annotations

from typing import Any

import pytest
from kintsugi.core.graph.executor import Executor
from kintsugi.core.graph.validation import validate
from running_prompts import ADDING, REGISTRY, run, shows, texts
from small_nodes import node


@pytest.fixture
def executor() -> Executor:
    return Executor(REGISTRY)


def test_a_node_whose_value_is_given_does_not_run(executor: Executor) -> None:
    result, recorder = run(ADDING, executor, given={"1": [30]})
    assert texts(result) == ["34"] and recorder.ran == ["2", "end"]


def test_nothing_upstream_of_a_given_node_runs(executor: Executor) -> None:
    result, recorder = run(ADDING, executor, given={"2": [50]})
    assert texts(result) == ["50"] and recorder.ran == ["end"]


def test_given_values_are_new_in_every_run_and_what_does_not_need_them_stays_cached(executor: Executor) -> None:
    prompt = ADDING | {"2": node("Add", a=["1", 0], b=["3", 0]), "3": node("Number", value=4)}
    assert texts(run(prompt, executor, given={"1": [30]})[0]) == ["34"]
    result, recorder = run(prompt, executor, given={"1": [40]})
    assert texts(result) == ["44"] and recorder.ran == ["2", "end"]
    assert texts(run(prompt, executor)[0]) == ["7"]


def test_equal_nodes_keep_the_values_given_to_each(executor: Executor) -> None:
    prompt = {"1": node("Number", value=1), "2": node("Number", value=1), "3": node("Add", a=["1", 0]), "4": node("Add", a=["2", 0])}
    prompt |= {"5": node("Add", a=["3", 0], b=["4", 0]), "end": shows(["5", 0])}
    assert texts(run(prompt, executor, given={"1": [10], "2": [20]})[0]) == ["50"]


def test_a_given_node_may_be_asked_for_itself(executor: Executor) -> None:
    result, recorder = run(ADDING, executor, outputs=["1"], given={"1": [30]})
    assert result.values["1"] == [[30]] and recorder.ran == []


def test_lazy_inputs_take_given_values(executor: Executor) -> None:
    prompt = {"1": node("Number", value=1), "2": node("Choose", first=True, a=["1", 0], b=["1", 0]), "end": shows(["2", 0])}
    result, recorder = run(prompt, executor, given={"1": [9]})
    assert texts(result) == ["9"] and recorder.ran == ["2", "end"]


def test_a_node_to_run_anew_does_so_alone(executor: Executor) -> None:
    assert run(ADDING, executor, anew=["end"])[1].ran == ["1", "2", "end"]
    assert run(ADDING, executor, anew=["end"])[1].ran == ["end"]
    assert run(ADDING, executor, anew=["2"])[1].ran == ["2", "end"]


def test_equal_nodes_to_run_anew_run_once() -> None:
    prompt = ADDING | {"twin": shows(["2", 0])}
    result, recorder = run(prompt, anew=["end", "twin"])
    assert len(recorder.ran) == 3 and texts(result) == texts(result, "twin") == ["7"]


@pytest.mark.parametrize("wrong", [{"value": "no number"}, {"value": 1000}, {}, {"value": ["7", 0]}])
def test_the_inputs_of_a_given_node_do_not_matter(wrong: dict[str, Any]) -> None:
    prompt = ADDING | {"1": node("Number", **wrong)}
    assert validate(prompt, REGISTRY, given=["1"]).node_errors == {}
    assert validate(prompt, REGISTRY).node_errors


def test_faults_upstream_of_a_given_node_do_not_matter() -> None:
    prompt = ADDING | {"1": node("Number", value=1000)}
    assert validate(prompt, REGISTRY, given=["2"]).outputs == ["end"]
