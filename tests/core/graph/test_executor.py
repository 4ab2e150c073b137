"""Prompts run with ComfyUI's meaning: order, caching, lists, lazy inputs, blocking, expansion, hidden inputs, interruption."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kintsugi.core.errors import WorkflowError
from kintsugi.core.graph.cache import LruCache, NoCache
from kintsugi.core.graph.events import running_node
from kintsugi.core.graph.executor import Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.validation import validate
from kintsugi.core.runtime import using_host
from running_prompts import ADDING, REGISTRY, CancellingHost, run, shows, texts
from small_nodes import NODES, node


@pytest.fixture
def executor() -> Executor:
    return Executor(REGISTRY)


def test_prompt_runs_and_tells_its_events_in_order() -> None:
    result, recorder = run(ADDING)
    assert result.status == "success" and texts(result) == ["7"]
    assert recorder.told == [
        ("start",),
        ("cached", []),
        ("executing", "1"),
        ("executing", "2"),
        ("executing", "end"),
        ("executed", "end", {"text": ["7"]}),
        ("success",),
    ]


def test_only_what_the_wanted_outputs_need_runs() -> None:
    prompt = ADDING | {"x": node("Fail", message="no"), "y": shows(["x", 0]), "z": node("Number", value=1)}
    result, recorder = run(prompt, outputs=["end"])
    assert result.status == "success" and recorder.ran == ["1", "2", "end"]


def test_unconnected_optional_inputs_are_not_passed() -> None:
    assert texts(run({"1": node("Number", value=3), "2": node("Add", a=["1", 0]), "end": shows(["2", 0])})[0]) == ["13"]


def test_wrapped_list_is_passed_as_a_list() -> None:
    assert texts(run({"end": node("Show", value={"__value__": ["1", 0]})})[0]) == ["['1', 0]"]


def test_outputs_come_before_other_ready_nodes_and_their_feeders_next() -> None:
    prompt = {
        "far": node("Number", value=1),
        "mid": node("Add", a=["far", 0]),
        "late": shows(["mid", 0]),
        "near": node("Number", value=2),
        "early": shows(["near", 0]),
    }
    assert run(prompt)[1].ran == ["near", "early", "far", "mid", "late"]


# Lists


def test_lists_fan_out_and_shorter_ones_repeat_their_last_item() -> None:
    prompt = {
        "1": node("Several", first=1, count=3),
        "2": node("Several", first=10, count=2),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "end": shows(["3", 0]),
    }
    result, recorder = run(prompt, keep=["3"])
    assert result.values["3"] == [[11, 13, 14]] and texts(result) == ["11", "13", "14"]
    assert recorder.ran.count("3") == 1


def test_list_outputs_of_mapped_calls_are_concatenated() -> None:
    prompt = {"1": node("Several", first=0, count=2), "2": node("Several", first=["1", 0], count=2), "end": shows(["2", 0])}
    assert texts(run(prompt)[0]) == ["0", "1", "1", "2"]


def test_input_is_list_gets_everything_in_one_call_widgets_too() -> None:
    prompt = {"1": node("Several", first=1, count=3), "2": node("Collect", items=["1", 0], word="w"), "end": shows(["2", 0])}
    assert texts(run(prompt)[0]) == ["[1, 2, 3]['w']"]


def test_batch_tensor_is_one_item() -> None:
    class Batch:
        RETURN_TYPES, FUNCTION = ("INT",), "give"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {}}

        def give(self) -> tuple[torch.Tensor]:
            return (torch.zeros(3, 2),)

    own = Executor(Registry(NODES | {"Batch": Batch}))
    result, _ = run({"1": node("Batch"), "end": shows(["1", 0])}, own, keep=["1"])
    assert len(texts(result)) == 1 and len(result.values["1"][0]) == 1


def test_empty_list_is_an_error_that_names_the_input() -> None:
    result, _ = run({"1": node("Several", first=1, count=0), "end": shows(["1", 0])})
    assert result.error is not None and result.error.node_id == "end" and "Input value received an empty list" in result.error.message


# Lazy inputs


def test_only_the_branch_asked_for_is_evaluated() -> None:
    prompt = {"1": node("Number", value=1), "2": node("Fail", message="no"), "3": node("Choose", first=True, a=["1", 0], b=["2", 0])}
    result, recorder = run(prompt | {"end": shows(["3", 0])})
    assert result.status == "success" and texts(result) == ["1"] and recorder.ran == ["1", "3", "end"]


@pytest.mark.parametrize("cache", [None, NoCache()])
def test_lazy_value_is_there_even_when_its_other_consumers_are_done(cache: Any) -> None:
    """Number feeds an output that runs long before the lazy input is asked for."""
    prompt = {
        "1": node("Number", value=5),
        "soon": shows(["1", 0]),
        "2": node("Add", a=["1", 0]),
        "3": node("Choose", first=True, a=["1", 0], b=["2", 0]),
        "end": shows(["3", 0]),
    }
    result, recorder = run(prompt, Executor(REGISTRY, cache))
    assert texts(result) == ["5"] and recorder.ran.count("1") == 1


def test_lazy_input_with_a_cached_source_is_evaluated_without_running_it(executor: Executor) -> None:
    prompt = {"1": node("Number", value=1), "2": node("Number", value=2), "s": shows(["2", 0])}
    choosing = prompt | {"3": node("Choose", first=False, a=["1", 0], b=["2", 0]), "end": shows(["3", 0])}
    run(prompt, executor)
    result, recorder = run(choosing, executor)
    assert texts(result) == ["2"] and recorder.ran == ["3", "end"]


# Blocking


def test_silent_blocker_stops_what_follows_and_nothing_else() -> None:
    prompt = {
        "1": node("Number", value=1),
        "2": node("Block", value=["1", 0], message=""),
        "3": node("Add", a=["2", 0]),
        "end": shows(["3", 0]),
        "other": shows(["1", 0]),
    }
    result, _ = run(prompt)
    assert result.status == "success" and "end" not in result.ui and texts(result, "other") == ["1"] and result.blocked == []


def test_blocker_with_a_message_is_told_once_at_the_first_consumer_each_run(executor: Executor) -> None:
    prompt = {
        "1": node("Number", value=1),
        "2": node("Block", value=["1", 0], message="odd"),
        "3": node("Add", a=["2", 0]),
        "end": shows(["3", 0]),
    }
    for _ in range(2):
        result, recorder = run(prompt, executor)
        (told,) = result.blocked
        assert told.node_id == "3" and "odd" in told.message and ("error", "3") in recorder.told


def test_blocker_stops_single_items_of_a_list() -> None:
    prompt = {"1": node("Several", first=0, count=4), "2": node("Block", value=["1", 0], message=""), "end": shows(["2", 0])}
    assert texts(run(prompt)[0]) == ["0", "2"]


# Hidden inputs, failures, interruption, memory


def test_hidden_inputs_arrive() -> None:
    result, _ = run({"7": node("Hidden")}, extra_data={"extra_pnginfo": {"workflow": 1}})
    assert result.ui["7"]["seen"] == ["7", ["7"], True, {"workflow": 1}]


def test_failure_names_node_class_title_and_message() -> None:
    prompt = {"1": node("Fail", message="no luck") | {"_meta": {"title": "My node"}}, "end": shows(["1", 0])}
    result, recorder = run(prompt)
    error = result.error
    assert result.status == "error" and error is not None and isinstance(error.exception, ValueError)
    assert (error.node_id, error.class_type, error.title, error.message) == ("1", "Fail", "My node", "ValueError: no luck")
    assert recorder.told[-1] == ("error", "1")


def test_interruption_is_looked_at_before_each_node() -> None:
    with using_host(CancellingHost(torch.device("cpu"), after=2)):
        result, recorder = run(ADDING)
    assert result.status == "interrupted" and recorder.ran == ["1", "2"] and recorder.told[-1][0] == "interrupted"


def test_node_that_notices_the_interruption_ends_the_run() -> None:
    result, recorder = run({"1": node("Cancel"), "end": shows(["1", 0])})
    assert result.status == "interrupted" and result.error is None and recorder.told[-1] == ("interrupted", "1")


def test_running_node_is_known_during_its_call_and_not_after() -> None:
    seen = []

    class Look:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "look", True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {}}

        def look(self) -> dict[str, Any]:
            seen.append((running_node(), torch.is_inference_mode_enabled()))
            return {"ui": {}}

    run({"5:3": node("Look")}, Executor(Registry({"Look": Look})))
    (found, inference) = seen[0]
    assert found is not None and (found.node_id, found.class_type, found.parent_id) == ("5:3", "Look", None)
    assert inference and running_node() is None


def test_values_are_released_when_the_last_consumer_has_run_without_cache() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    counts = []

    class Make:
        RETURN_TYPES, FUNCTION = ("T",), "make"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {}, "optional": {"before": ("T",)}}

        def make(self, before: torch.Tensor | None = None) -> tuple[torch.Tensor]:
            gc.collect()
            counts.append(sum(each() is not None for each in alive))
            made = torch.zeros(10)
            alive.append(weakref.ref(made))
            return (made,)

    prompt = (
        {"0": node("Make")} | {str(index): node("Make", before=[str(index - 1), 0]) for index in range(1, 6)} | {"end": shows(["5", 0])}
    )
    result = Executor(Registry(NODES | {"Make": Make}), NoCache()).run(prompt)
    assert result.status == "success" and max(counts) == 1


def test_kept_values_are_there_though_cached_or_released() -> None:
    for cache in (None, NoCache()):
        own = Executor(REGISTRY, cache)
        assert run(ADDING, own, keep=["1"])[0].values == {"1": [[3]], "end": []}
        assert run(ADDING, own, keep=["1"])[0].values == {"1": [[3]], "end": []}


def test_wrong_number_of_results_is_the_nodes_failure() -> None:
    class Short:
        RETURN_TYPES, FUNCTION = ("INT", "INT"), "give"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {}}

        def give(self) -> tuple[int]:
            return (1,)

    result, _ = run({"1": node("Short"), "end": shows(["1", 0])}, Executor(Registry(NODES | {"Short": Short})))
    assert result.error is not None and "returned 1 values, expected a tuple of 2" in result.error.message


def test_circle_and_unknown_class_are_refused_even_unvalidated() -> None:
    with pytest.raises(WorkflowError, match="circle: 1 -> 1"):
        run({"1": node("Add", a=["1", 0]), "end": shows(["1", 0])})
    with pytest.raises(WorkflowError, match="no node class"):
        run({"1": node("Nope"), "end": shows(["1", 0])})


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A random graph of Numbers and Adds, with the value that its last node must have."""
    prompt, values = {}, []
    for index in range(draw(st.integers(1, 15))):
        if not values or draw(st.booleans()):
            values.append(draw(st.integers(-5, 5)))
            prompt[str(index)] = node("Number", value=values[index])
        else:
            one, other = draw(st.integers(0, index - 1)), draw(st.integers(0, index - 1))
            values.append(values[one] + values[other])
            prompt[str(index)] = node("Add", a=[str(one), 0], b=[str(other), 0])
    shuffled = dict(draw(st.permutations(list(prompt.items()))))
    return shuffled | {"end": shows([str(len(values) - 1), 0])}, values[-1]


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(["last", "lru", "none"]))
def test_any_graph_gives_its_value_with_any_cache(graph: tuple[dict[str, Any], int], kind: str) -> None:
    prompt, value = graph
    own = Executor(REGISTRY, {"last": None, "lru": LruCache(3), "none": NoCache()}[kind])
    assert validate(prompt, REGISTRY).error is None
    for _ in range(2):
        assert texts(own.run(prompt)) == [str(value)]


def test_intermediate_output_is_told_again_when_cached(executor: Executor) -> None:
    class Peek:
        RETURN_TYPES, FUNCTION, HAS_INTERMEDIATE_OUTPUT = ("INT",), "peek", True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {"value": ("INT", {})}}

        def peek(self, value: int) -> dict[str, Any]:
            return {"result": (value,), "ui": {"text": [f"saw {value}"]}}

    own = Executor(Registry(NODES | {"Peek": Peek}))
    prompt = {"1": node("Peek", value=4), "2": node("Add", a=["1", 0], b=1), "end": shows(["2", 0])}
    run(prompt, own)
    changed = prompt | {"2": node("Add", a=["1", 0], b=2)}
    result, recorder = run(changed, own)
    assert recorder.ran == ["2", "end"] and texts(result, "1") == ["saw 4"] and texts(result) == ["6"]


def test_ui_of_list_calls_is_merged_by_the_keys_of_the_first() -> None:
    class Odd:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "tell", True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {"value": ("INT", {})}}

        def tell(self, value: int) -> dict[str, Any]:
            return {"ui": {"text": [value]} | ({"late": [value]} if value else {})}

    own = Executor(Registry(NODES | {"Odd": Odd}))
    result, _ = run({"1": node("Several", first=0, count=3), "end": node("Odd", value=["1", 0])}, own)
    assert result.ui["end"] == {"text": [0, 1, 2]}
