"""Runs that grow or wait: expansion of nodes into graphs, and coroutine nodes side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kintsugi.core.errors import WorkflowError
from kintsugi.core.graph.cache import NoCache
from kintsugi.core.graph.executor import Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.runtime import using_host
from running_prompts import REGISTRY, CancellingHost, run, shows, texts
from small_nodes import NODES, Wait, node


@pytest.fixture
def executor() -> Executor:
    return Executor(REGISTRY)


# Expansion


@pytest.mark.parametrize("cache", [None, NoCache()])
def test_expanded_nodes_run_in_place_of_the_node(cache: Any) -> None:
    prompt = {"1": node("Number", value=5), "2": node("Expand", value=["1", 0], count=3), "end": shows(["2", 0])}
    own = Executor(REGISTRY, cache)
    result, recorder = run(prompt, own)
    assert texts(result) == ["8"] and recorder.ran == ["1", "2", "2.0.0.0", "2.0.0.1", "2.0.0.2", "end"]
    assert result.graph.get_display_node_id("2.0.0.1") == "2" and result.graph.get_real_node_id("2.0.0.1") == "2"
    assert len(run(prompt, own)[1].ran) == (6 if cache else 0)


def test_expansion_of_nothing_passes_its_link_on() -> None:
    prompt = {"1": node("Number", value=5), "2": node("Expand", value=["1", 0], count=0), "end": shows(["2", 0])}
    assert texts(run(prompt)[0]) == ["5"]


def test_expanded_nodes_are_cached_too(executor: Executor) -> None:
    prompt = {"1": node("Number", value=5), "2": node("Expand", value=["1", 0], count=3), "end": shows(["2", 0])}
    run(prompt, executor)
    longer = prompt | {"2": node("Expand", value=["1", 0], count=4)}
    assert run(longer, executor)[1].ran == ["2", "2.0.0.3", "end"]


class Reckless:
    """Expands to whatever graph it is given."""

    RETURN_TYPES, FUNCTION = ("INT",), "expand"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"graph": ("GRAPH", {})}}

    def expand(self, graph: dict[str, Any]) -> dict[str, Any]:
        return {"result": (["new", 0],), "expand": graph}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"1": node("Number", value=1)}, "taken"),
        ({"new": node("Nonsense")}, "no node class 'Nonsense'"),
        ({"new": node("Add", a=["gone", 0])}, "does not exist"),
        ({"new": node("Add", a=["new", 0])}, "circle"),
        ({}, "does not exist"),
    ],
)
def test_bad_expansion_is_the_failure_of_its_node(graph: dict[str, Any], message: str) -> None:
    own = Executor(Registry(NODES | {"Reckless": Reckless}))
    result, _ = run({"1": node("Reckless", graph=graph), "end": shows(["1", 0])}, own)
    assert result.error is not None and result.error.node_id == "1" and message in result.error.message


def test_expansion_that_waits_for_itself_is_named() -> None:
    own = Executor(Registry(NODES | {"Reckless": Reckless}))
    with pytest.raises(WorkflowError, match="circle"):
        run({"1": node("Reckless", graph={"new": node("Add", a=["1", 0])}), "end": shows(["1", 0])}, own)


# Async nodes


def test_async_nodes_run_at_the_same_time() -> None:
    Wait.waiting = 0
    prompt = {"1": node("Wait", value=1, together=2), "2": node("Wait", value=2, together=2), "3": node("Add", a=["1", 0], b=["2", 0])}
    result, recorder = run(prompt | {"end": shows(["3", 0])})
    assert texts(result) == ["3"] and ("progress", "1", 1, 1) in recorder.told and ("progress", "2", 1, 1) in recorder.told


def test_async_node_maps_lists_at_the_same_time() -> None:
    Wait.waiting = 0
    prompt = {"1": node("Several", first=1, count=3), "2": node("Wait", value=["1", 0], together=3), "end": shows(["2", 0])}
    assert texts(run(prompt)[0]) == ["1", "2", "3"]


def test_waiting_for_an_async_node_can_be_interrupted() -> None:
    Wait.waiting = 0
    with using_host(CancellingHost(torch.device("cpu"), after=2)):
        result, recorder = run({"1": node("Wait", value=1, together=99), "end": shows(["1", 0])})
    assert result.status == "interrupted" and recorder.told[-1] == ("interrupted", "1")
