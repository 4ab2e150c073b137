"""The editor's workflow becomes the prompt that the editor itself would send."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kintsugi.core.errors import WorkflowError
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.conversion import prompt_of, to_prompt
from kintsugi.core.graph.documents import parse_workflow
from kintsugi.core.graph.registry import Registry
from small_nodes import NODES
from ui_files import schema_1, subgraph, ui_link, ui_node, version_04

FIXTURES = Path(__file__).parents[2] / "golden" / "comfyui" / "fixtures"
PAIRS = sorted(path.name.removesuffix(".api.json") for path in FIXTURES.glob("*.api.json"))
REGISTRY = Registry(NODES | stock_nodes.NODE_CLASS_MAPPINGS, stock_nodes.NODE_DISPLAY_NAME_MAPPINGS)


def convert(nodes: list[Any], links: list[Any], subgraphs: list[Any] | None = None) -> dict[str, Any]:
    """Converts both spellings of the graph, which must agree."""
    workflow = schema_1(nodes, links, subgraphs)
    prompt = to_prompt(workflow, REGISTRY)
    assert to_prompt(version_04(workflow), REGISTRY) == prompt
    return prompt


def inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: node["inputs"] for node_id, node in prompt.items()}


def load(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text())


def without_meta(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: {key: value for key, value in node.items() if key != "_meta"} for node_id, node in prompt.items()}


@pytest.mark.parametrize("pair", PAIRS)
def test_fixture_converts_exactly(pair: str) -> None:
    prompt = to_prompt(load(f"{pair}.workflow.json"), REGISTRY)
    assert prompt == load(f"{pair}.api.json")


@pytest.mark.parametrize("pair", PAIRS)
def test_fixture_in_the_other_spelling_converts_exactly(pair: str) -> None:
    workflow = load(f"{pair}.workflow.json")
    fields = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    newer = {**workflow, "version": 1, "links": [dict(zip(fields, link, strict=True)) for link in workflow["links"]]}
    newer["nodes"] = [{**node, "size": {"0": 1, "1": 2}} for node in workflow["nodes"]]
    assert without_meta(to_prompt(newer, REGISTRY)) == without_meta(load(f"{pair}.api.json"))


@pytest.mark.parametrize("pair", PAIRS)
def test_conversion_leaves_the_workflow_as_it_was(pair: str) -> None:
    workflow = load(f"{pair}.workflow.json")
    kept = copy.deepcopy(workflow)
    to_prompt(workflow, REGISTRY)
    assert workflow == kept


@pytest.mark.parametrize("pair", PAIRS)
def test_positional_values_alone_convert_the_same(pair: str) -> None:
    text = (FIXTURES / f"{pair}.workflow.json").read_text().replace("widgets_values_named", "ignored")
    assert without_meta(to_prompt(json.loads(text), REGISTRY)) == without_meta(load(f"{pair}.api.json"))


STORED = ["b.png", 99, "randomize", 30, "text", "slow", "fixed", "", ["x", "z"], 0.25, [[0, 0], [1, 0.5]], "image"]
SENT = {
    "file": "b.png",
    "seed": 99,
    "steps": 30,
    "prompt": "text",
    "mode": "slow",
    "picked": {"__value__": ["x", "z"]},
    "amount": 0.25,
    "curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 0.5]]},
}


def test_positional_values_skip_control_and_upload_entries() -> None:
    prompt = convert([ui_node(1, "Widgets", widgets_values=STORED)], [])
    assert prompt["1"]["inputs"] == SENT


def test_values_may_be_an_object_or_named() -> None:
    named = {name: value["__value__"] if isinstance(value, dict) else value for name, value in SENT.items()}
    by_object = convert([ui_node(1, "Widgets", widgets_values=named)], [])
    by_name = convert([ui_node(1, "Widgets", widgets_values=["shifted"], widgets_values_named=named)], [])
    assert by_object["1"]["inputs"] == by_name["1"]["inputs"] == SENT


def test_named_values_of_another_version_of_the_node_are_not_trusted() -> None:
    strange = {"steps": 3, "no such widget": 1}
    prompt = convert([ui_node(1, "Widgets", widgets_values=STORED, widgets_values_named=strange)], [])
    assert prompt["1"]["inputs"]["steps"] == 30


def test_missing_trailing_values_are_defaults() -> None:
    sent = convert([ui_node(1, "Widgets", widgets_values=["a.png", 5, "fixed"])], [])["1"]["inputs"]
    assert (sent["seed"], sent["steps"], sent["prompt"], sent["mode"], sent["amount"]) == (5, 20, "plain", "fast", 0.5)


def test_dynamic_prompts_take_the_first_choice_and_lose_comments() -> None:
    text = r"a {red|{dark|pale} blue} fox \{kept\} // note" "\n/* more\nnotes */{x}!"
    values = ["a.png", 5, "fixed", 20, text]
    assert convert([ui_node(1, "Widgets", widgets_values=values)], [])["1"]["inputs"]["prompt"] == "a red fox {kept} \nx!"


def test_link_replaces_the_widget_value() -> None:
    nodes = [ui_node(1, "Number", widgets_values=[5]), ui_node(2, "Add", [("a", "INT", 1), ("b", "INT", 2, "b")], widgets_values=[9])]
    assert inputs(convert(nodes, [ui_link(1, 1, 0, 2, 0), ui_link(2, 1, 0, 2, 1)]))["2"] == {"a": ["1", 0], "b": ["1", 0]}


def test_target_slot_of_a_link_record_is_not_trusted() -> None:
    nodes = [ui_node(1, "Number", widgets_values=[5]), ui_node(2, "Add", [("b", "INT", None, "b"), ("a", "INT", 1)], widgets_values=[9])]
    assert inputs(convert(nodes, [ui_link(1, 1, 0, 2, 0)]))["2"] == {"a": ["1", 0], "b": 9}


@pytest.mark.parametrize("mode", [0, 1, 3])
def test_legacy_modes_are_as_always(mode: int) -> None:
    assert list(convert([ui_node(1, "Number", widgets_values=[1], mode=mode)], [])) == ["1"]


def test_muted_node_and_links_to_it_go() -> None:
    nodes = [ui_node(1, "Number", mode=2), ui_node(2, "Add", [("a", "INT", 1), ("b", "INT", 2, "b")], widgets_values=[4])]
    prompt = convert(nodes, [ui_link(1, 1, 0, 2, 0), ui_link(2, 1, 0, 2, 1)])
    assert inputs(prompt) == {"2": {"b": 4}}


def test_notes_go() -> None:
    assert convert([ui_node(1, "Note", widgets_values=["hello"]), ui_node(2, "MarkdownNote")], []) == {}


def test_chain_of_reroutes_is_transparent() -> None:
    count = 1500
    nodes = [ui_node(0, "Number", widgets_values=[1])]
    nodes += [ui_node(index, "Reroute", [("", "*", index)], ("*",)) for index in range(1, count)]
    nodes += [ui_node(count, "Show", [("value", "INT", count)], ())]
    prompt = convert(nodes, [ui_link(index, index - 1, 0, index, 0) for index in range(1, count + 1)])
    assert inputs(prompt) == {"0": {"value": 1}, str(count): {"value": ["0", 0]}}


def test_circle_of_reroutes_is_named() -> None:
    nodes = [ui_node(1, "Reroute", [("", "*", 2)]), ui_node(2, "Reroute", [("", "*", 1)]), ui_node(3, "Show", [("value", "INT", 1)], ())]
    with pytest.raises(WorkflowError, match="circle: nodes 3 -> 1 -> 2"):
        convert(nodes, [ui_link(1, 1, 0, 2, 0), ui_link(2, 2, 0, 1, 0)])


def test_primitive_pushes_its_value_even_through_a_reroute_and_when_muted() -> None:
    nodes = [
        ui_node(1, "PrimitiveNode", widgets_values=[42, "randomize"], mode=2),
        ui_node(2, "Reroute", [("", "*", 1)]),
        ui_node(3, "Add", [("a", "INT", 2), ("b", "INT", 3, "b")], widgets_values=[1]),
    ]
    prompt = convert(nodes, [ui_link(1, 1, 0, 2, 0), ui_link(2, 2, 0, 3, 0), ui_link(3, 1, 0, 3, 1)])
    assert inputs(prompt) == {"3": {"a": 42, "b": 42}}


def bypassed(kind: str, node_inputs: list[Any], wanted: str, outputs: tuple[str, ...] = ("INT",), slot: int = 0) -> Any:
    """What a consumer of type `wanted` gets from a bypassed node whose inputs are linked to nodes 10, 11, ..."""
    sources = [ui_node(10 + index, "Number", widgets_values=[0]) for index in range(len(node_inputs))]
    entries = [(name, kind_, index + 1 if linked else None, *widget) for index, (name, kind_, linked, *widget) in enumerate(node_inputs)]
    nodes = [*sources, ui_node(5, kind, entries, outputs, mode=4), ui_node(6, "Show", [("value", wanted, 99)], ())]
    links = [ui_link(index + 1, 10 + index, 0, 5, index) for index in range(len(node_inputs))]
    return inputs(convert(nodes, [*links, ui_link(99, 5, slot, 6, 0, wanted)]))["6"].get("value")


def test_bypass_of_any_type_uses_the_input_of_the_same_number_or_the_first() -> None:
    entries = [("a", "IMAGE", True), ("b", "MASK", True)]
    assert bypassed("Unknown", entries, "*", ("INT", "INT", "INT"), 1) == ["11", 0]
    assert bypassed("Unknown", entries, "*", ("INT", "INT", "INT"), 2) == ["10", 0]


def test_bypass_prefers_the_input_of_the_same_number() -> None:
    entries = [("a", "INT", True), ("b", "INT", True)]
    assert bypassed("Unknown", entries, "INT", ("MASK", "INT"), 1) == ["11", 0]


def test_bypass_falls_to_the_first_input_of_equal_then_of_fitting_type() -> None:
    assert bypassed("Unknown", [("m", "MASK", True), ("x", "INT,FLOAT", True), ("y", "INT", True)], "INT") == ["12", 0]
    assert bypassed("Unknown", [("m", "MASK", True), ("x", "INT,FLOAT", True)], "INT") == ["11", 0]


def test_bypass_without_fitting_input_gives_nothing() -> None:
    assert bypassed("Unknown", [("m", "MASK", True)], "INT") is None


def test_bypass_counts_widget_inputs_that_the_file_left_out() -> None:
    """ImageScale's `width` is the first INT input, and it is not linked; that `height` is linked does not help."""
    entries = [("image", "IMAGE", True), ("height", "INT", True, "height")]
    assert bypassed("ImageScale", entries, "INT", ("IMAGE",)) is None


def test_unknown_classes_are_listed_all_at_once_unless_dropped() -> None:
    nodes = [ui_node(1, "Foo"), ui_node(2, "Bar"), ui_node(3, "Foo"), ui_node(4, "Muted", mode=2), ui_node(5, "Bypassed", mode=4)]
    with pytest.raises(WorkflowError) as caught:
        convert(nodes, [])
    message = str(caught.value)
    assert "Foo (node 1, 3)" in message and "Bar (node 2)" in message and "Muted" not in message and "Bypassed" not in message


def add_inside(**more: Any) -> dict[str, Any]:
    """A subgraph: value -> Add(b promoted) -> out."""
    nodes = [ui_node(1, "Add", [("a", "INT", 1), ("b", "INT", 2, "b")], widgets_values=[64])]
    links = [ui_link(1, -10, 0, 1, 0), ui_link(2, -10, 1, 1, 1), ui_link(3, 1, 0, -20, 0)]
    return subgraph("adder", nodes, links, [("value", "INT"), ("b", "INT")]) | more


def test_instances_have_their_own_promoted_values_and_ids() -> None:
    nodes = [
        ui_node(1, "Number", widgets_values=[1]),
        ui_node(5, "adder", [("value", "INT", 1)], widgets_values=[7]),
        ui_node("x", "adder", [("value", "INT", 2)], widgets_values=[1], widgets_values_named={"b": 8}),
        ui_node(9, "Show", [("value", "INT", 3)], ()),
    ]
    prompt = convert(nodes, [ui_link(1, 1, 0, 5, 0), ui_link(2, 5, 0, "x", 0), ui_link(3, "x", 0, 9, 0)], [add_inside()])
    assert inputs(prompt) == {
        "1": {"value": 1},
        "5:1": {"a": ["1", 0], "b": 7},
        "x:1": {"a": ["5:1", 0], "b": 8},
        "9": {"value": ["x:1", 0]},
    }


def test_promoted_widget_may_be_linked_outside() -> None:
    nodes = [
        ui_node(1, "Number", widgets_values=[1]),
        ui_node(5, "adder", [("value", "INT", 1), ("b", "INT", 2, "b")], widgets_values=[7]),
    ]
    prompt = convert(nodes, [ui_link(1, 1, 0, 5, 0), ui_link(2, 1, 0, 5, 1)], [add_inside()])
    assert inputs(prompt)["5:1"] == {"a": ["1", 0], "b": ["1", 0]}


def test_primitive_reaches_into_a_subgraph() -> None:
    nodes = [ui_node(1, "PrimitiveNode", widgets_values=[3]), ui_node(5, "adder", [("b", "INT", 1, "b")], widgets_values=[7])]
    assert inputs(convert(nodes, [ui_link(1, 1, 0, 5, 0)], [add_inside()])) == {"5:1": {"b": 3}}


@pytest.mark.parametrize("nested_definition", [False, True])
def test_nested_instances_flatten_with_path_ids(nested_definition: bool) -> None:
    inner = add_inside()
    inside = [ui_node(2, "adder", [("value", "INT", 1), ("b", "INT", 2, "b")], widgets_values=[50])]
    links = [ui_link(1, -10, 0, 2, 0), ui_link(2, -10, 1, 2, 1), ui_link(3, 2, 0, -20, 0)]
    outer = subgraph("outer", inside, links, [("value", "INT"), ("amount", "INT")])
    definitions = [outer | {"definitions": {"subgraphs": [inner]}}] if nested_definition else [outer, inner]
    nodes = [
        ui_node(1, "Number", widgets_values=[1]),
        ui_node(7, "outer", [("value", "INT", 1)], widgets_values=[33]),
        ui_node(9, "Show", [("value", "INT", 2)], ()),
    ]
    prompt = convert(nodes, [ui_link(1, 1, 0, 7, 0), ui_link(2, 7, 0, 9, 0)], definitions)
    assert inputs(prompt) == {"1": {"value": 1}, "7:2:1": {"a": ["1", 0], "b": 33}, "9": {"value": ["7:2:1", 0]}}


def test_proxy_widgets_of_older_files_set_inner_values() -> None:
    proxies = {"proxyWidgets": [["1", "b"], ["-1", "c"], ["2", "value"], ["1", "$$preview"]]}
    inside = [
        ui_node(1, "Add", widgets_values=[64]),
        ui_node(2, "Number", widgets_values=[20]),
        ui_node(3, "Add", [("b", "INT", 1, "b")], widgets_values=[5]),
    ]
    definition = subgraph("old", inside, [ui_link(1, -10, 0, 3, 0)], [("c", "INT")])
    prompt = convert([ui_node(4, "old", properties=proxies, widgets_values=[11, 12, None])], [], [definition])
    assert inputs(prompt) == {"4:1": {"b": 11}, "4:2": {"value": 20}, "4:3": {"b": 12}}


def test_proxy_widget_of_a_nested_instance_reaches_its_inner_node() -> None:
    inner = subgraph("inner", [ui_node(1, "Number", widgets_values=[0])], [], [])
    instance = ui_node(2, "inner", properties={"proxyWidgets": [["1", "value"]]}, widgets_values=[5])
    outer = subgraph("outer", [instance], [], [])
    root = ui_node(3, "outer", properties={"proxyWidgets": [["2", "value"]]}, widgets_values=[6])
    assert inputs(convert([root], [], [outer, inner])) == {"3:2:1": {"value": 6}}


@pytest.mark.parametrize("mode", [2, 4])
def test_muted_or_bypassed_instance_is_not_opened(mode: int) -> None:
    nodes = [
        ui_node(1, "Number", widgets_values=[1]),
        ui_node(5, "adder", [("value", "INT", 1)], mode=mode),
        ui_node(9, "Show", [("value", "INT", 2)], ()),
    ]
    prompt = convert(nodes, [ui_link(1, 1, 0, 5, 0), ui_link(2, 5, 0, 9, 0)], [add_inside()])
    assert inputs(prompt) == {"1": {"value": 1}, "9": {"value": ["1", 0]} if mode == 4 else {}}


def test_members_of_a_muted_inner_instance_are_left_out() -> None:
    outer = subgraph("outer", [ui_node(2, "adder", mode=2), ui_node(3, "Number", widgets_values=[1])], [], [])
    assert list(convert([ui_node(1, "outer")], [], [outer, add_inside()])) == ["1:3"]


def test_input_passed_straight_through_a_subgraph_is_followed() -> None:
    definition = subgraph("through", [], [ui_link(1, -10, 0, -20, 0)], [("x", "INT")])
    nodes = [
        ui_node(1, "Number", widgets_values=[1]),
        ui_node(2, "through", [("x", "INT", 1)]),
        ui_node(3, "Show", [("value", "INT", 2)], ()),
    ]
    assert inputs(convert(nodes, [ui_link(1, 1, 0, 2, 0), ui_link(2, 2, 0, 3, 0)], [definition]))["3"] == {"value": ["1", 0]}


def test_subgraph_that_contains_itself_is_refused() -> None:
    definition = subgraph("loop", [ui_node(2, "loop", [("x", "INT", 1)])], [ui_link(1, -10, 0, 2, 0)], [("x", "INT")])
    with pytest.raises(WorkflowError, match="node 1:2: Subgraph 'the loop' contains itself"):
        convert([ui_node(1, "loop")], [], [definition])


def test_prefix_takes_values_of_other_nodes_and_keeps_dates() -> None:
    prefix = "%Strength.value%/%Number.value%-%date:yyyy%-%width%-%Nobody.x%"
    nodes = [
        ui_node(1, "Number", widgets_values=[5], title="Strength", properties={"Node name for S&R": "Number"}),
        ui_node(2, "SaveImage", [("images", "IMAGE", None)], (), widgets_values=[prefix]),
    ]
    assert inputs(convert(nodes, []))["2"]["filename_prefix"] == "5/5-%date:yyyy%-%width%-%Nobody.x%"


def test_titles_travel_as_meta() -> None:
    prompt = convert([ui_node(1, "Number", title="Mine"), ui_node(2, "LoadImage")], [])
    assert [node["_meta"]["title"] for node in prompt.values()] == ["Mine", "Load Image"]


def test_malformed_entries_are_told_with_their_place() -> None:
    with pytest.raises(WorkflowError, match=r"nodes\[1\]\.type: Field required.*links\[0\]\.origin_slot"):
        to_prompt({"nodes": [ui_node(1, "Number"), {"id": 2}], "links": [[1, 1, "x", 2, 0, "INT"]]}, REGISTRY)


def test_document_with_a_prompt_runs_the_prompt() -> None:
    document = parse_workflow({"1": {"class_type": "Number", "inputs": {}}}, "here")
    assert prompt_of(document, REGISTRY) is document.prompt
    workflow = schema_1([ui_node(1, "Number", widgets_values=[3])], [])
    assert inputs(prompt_of(parse_workflow(workflow, "here"), REGISTRY)) == {"1": {"value": 3}}


def places(data: Any) -> list[list[Any]]:
    """The path to every value in parsed JSON."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path for key, value in entries for path in ([key], *([key, *rest] for rest in places(value)))]


WORKFLOWS = [load(f"{pair}.workflow.json") for pair in PAIRS]
DAMAGE = (
    st.none() | st.booleans() | st.integers(-20, 20) | st.text(max_size=3) | st.builds(list) | st.builds(dict) | st.builds(lambda: [[1]])
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WORKFLOWS), st.data())
def test_damaged_workflow_converts_or_is_refused_and_never_crashes(workflow: dict[str, Any], data: st.DataObject) -> None:
    damaged = copy.deepcopy(workflow)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(damaged)))
        holder = damaged
        for key in path:
            holder = holder[key]
        holder[last] = data.draw(DAMAGE)
    with contextlib.suppress(WorkflowError):
        assert isinstance(to_prompt(damaged, REGISTRY), dict)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Any], list[Any], list[str]]:
    """A chain of Number, then reroutes, bypassed and plain Adds, then Show; and the ids of the plain ones."""
    kinds = draw(st.lists(st.sampled_from(["Reroute", "bypass", "Add"]), max_size=12))
    nodes, plain = [ui_node(0, "Number", widgets_values=[1])], ["0"]
    for index, kind in enumerate(kinds, start=1):
        if kind == "Reroute":
            nodes.append(ui_node(index, "Reroute", [("", "*", index)], ("*",)))
        else:
            nodes.append(ui_node(index, "Add", [("a", "INT", index)], mode=4 if kind == "bypass" else 0, widgets_values=[1]))
            plain += [str(index)] if kind == "Add" else []
    last = len(nodes)
    nodes.append(ui_node(last, "Show", [("value", "INT", last)], ()))
    links = [ui_link(index, index - 1, 0, index, 0) for index in range(1, last + 1)]
    return draw(st.permutations(nodes)), draw(st.permutations(links)), [*plain, str(last)]


@settings(max_examples=40, deadline=None)
@given(chains())
def test_any_chain_links_each_plain_node_to_the_plain_one_before(chain: tuple[list[Any], list[Any], list[str]]) -> None:
    nodes, links, plain = chain
    prompt = convert(nodes, links)
    assert set(prompt) == set(plain)
    for before, after in itertools.pairwise(plain):
        assert prompt[after]["inputs"]["value" if after == plain[-1] else "a"] == [before, 0]
