"""Every fault of a prompt is found at once, in ComfyUI's shapes, and told in lines a person can act on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.validation import Validation, fault_lines, validate
from small_nodes import NODES, node


class AnyType(str):
    """Equals every type, as packs write it."""

    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


class TakesAll:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "take", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"value": (AnyType("*"),)}}


class TakesStar(TakesAll):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"value": ("*",)}}


class ChecksTypes(TakesStar):
    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict[str, str]) -> bool | str:  # noqa: N802
        return input_types == {"value": "INT"} or f"got {input_types}"


class Choosy:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "take", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {"size": ("INT", {"min": 0, "max": 10}), "free": ("INT", {"min": 0, "max": 10})},
            "optional": {"kind": (["a", "b"],), "many": ([str(index) for index in range(30)],), "linked": ("INT",)},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, free: int, linked: Any = "absent") -> bool | str:  # noqa: N802
        if free == 99:
            raise RuntimeError("boom")
        return (linked in (None, "absent") and free != 98) or "98 is taken"


REGISTRY = Registry(NODES | {kind.__name__: kind for kind in (TakesAll, TakesStar, ChecksTypes, Choosy)})


def check(prompt: Any, **more: Any) -> Validation:
    return validate(prompt, REGISTRY, **more)


def faults(prompt: dict[str, Any], node_id: str) -> list[dict[str, Any]]:
    return check(prompt).node_errors[node_id]["errors"]


def shown(source: dict[str, Any]) -> dict[str, Any]:
    return {"1": source, "2": node("Show", value=["1", 0])}


def test_good_prompt_gives_its_outputs() -> None:
    assert check(shown(node("Number", value=3))) == Validation(["2"], None, {})


def test_literals_are_converted_in_place_and_lists_stay_wrapped() -> None:
    prompt = shown(node("Number", value={"__value__": "7"}))
    prompt["3"] = node("Widgets", number=["1", 0], file="a.png", seed=1.9, steps="5", prompt=12, picked={"__value__": ["x", "y"]})
    prompt["4"] = node("Show", value=["3", 0])
    assert check(prompt).error is None
    assert prompt["1"]["inputs"] == {"value": 7}
    sent = prompt["3"]["inputs"]
    assert (sent["seed"], sent["steps"], sent["prompt"], sent["picked"]) == (1, 5, "12", {"__value__": ["x", "y"]})
    again = copy.deepcopy(prompt)
    assert check(prompt).error is None and prompt == again


CASES = {
    "required_input_missing": (node("Number"), "value", {}),
    "bad_linked_input": (node("Number", value=["1"]), "value", {"received_value": ["1"]}),
    "invalid_input_type": (node("Number", value="x"), "value", {"received_value": "x"}),
    "value_smaller_than_min": (node("Number", value=-101), "value", {"received_value": -101}),
    "value_bigger_than_max": (node("Number", value=101), "value", {"received_value": 101}),
}


@pytest.mark.parametrize("kind", CASES)
def test_fault_of_an_input_has_its_kind_and_extra_info(kind: str) -> None:
    source, name, extra = CASES[kind]
    (told,) = faults(shown(source), "1")
    assert set(told) == {"type", "message", "details", "extra_info"}
    assert told["type"] == kind and told["extra_info"]["input_name"] == name
    assert extra.items() <= told["extra_info"].items()
    if extra:
        assert told["extra_info"]["input_config"] == ("INT", {"default": 0, "min": -100, "max": 100})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, [], {"a": 1}, "1.5"])
def test_what_is_no_integer_is_a_fault_never_a_crash(value: Any) -> None:
    (told,) = faults(shown(node("Number", value=value)), "1")
    assert told["type"] in ("invalid_input_type", "bad_linked_input")


@pytest.mark.parametrize("link", [["9", 0], ["1", 1], ["1", -1], ["1", "0"], [1, 0], ["1", 0, 0], ["1", True]])
def test_bad_link_is_told(link: list[Any]) -> None:
    (told,) = faults({"1": node("Number", value=1), "2": node("Show", value=link)}, "2")
    assert told["type"] == "bad_linked_input" and told["extra_info"]["received_value"] == link


def test_mismatched_types_tell_both_and_the_link() -> None:
    (told,) = faults(
        {"1": node("Collect", items=["3", 0], word="w"), "2": node("Add", a=["1", 0]), "3": node("Number", value=1)} | ends("2"), "2"
    )
    assert told["type"] == "return_type_mismatch" and "LIST" in told["details"] and "INT" in told["details"]
    assert told["extra_info"]["received_type"] == "LIST" and told["extra_info"]["linked_node"] == ["1", 0]


def test_one_common_name_makes_types_fit() -> None:
    assert check(shown(node("Number", value=1))).error is None  # INT into INT,STRING,LIST


def test_plain_star_takes_nothing_but_a_type_that_equals_everything_does() -> None:
    number = node("Number", value=1)
    assert check({"1": number, "2": node("TakesAll", value=["1", 0])}).error is None
    assert faults({"1": number, "2": node("TakesStar", value=["1", 0])}, "2")[0]["type"] == "return_type_mismatch"


def test_class_that_asks_for_input_types_checks_them_itself() -> None:
    assert check({"1": node("Number", value=1), "2": node("ChecksTypes", value=["1", 0])}).error is None
    wrong = {"1": node("Collect", items=["3", 0], word=""), "2": node("ChecksTypes", value=["1", 0]), "3": node("Number", value=1)}
    assert [told["type"] for told in faults(wrong, "2")] == ["custom_validation_failed"]


def test_choice_outside_the_list_is_told_and_long_lists_are_only_counted() -> None:
    few, many = faults({"1": node("Choosy", size=1, free=1, kind="c", many="99")}, "1")
    assert few["type"] == many["type"] == "value_not_in_list"
    assert "'c' not in a, b" in few["details"] and few["extra_info"]["input_config"] == (["a", "b"],)
    assert "30" in many["details"] and many["extra_info"]["input_config"] is None


def test_choices_of_the_newer_spelling_and_selections_are_checked_too() -> None:
    base = {"number": ["1", 0], "file": "a.png", "seed": 1, "steps": 1, "prompt": ""}
    prompt = {"1": node("Number", value=1), "2": node("Widgets", **base, mode="odd", picked={"__value__": ["x", "q"]})} | ends("2")
    assert [told["extra_info"]["input_name"] for told in faults(prompt, "2")] == ["mode", "picked"]


def test_inputs_the_class_checks_itself_skip_the_range_check() -> None:
    assert check({"1": node("Choosy", size=1, free=50)}).error is None
    (told,) = faults({"1": node("Choosy", size=1, free=98)}, "1")
    assert told["type"] == "custom_validation_failed" and "98 is taken" in told["details"]
    assert told["extra_info"]["input_name"] == "free"


def test_linked_inputs_reach_the_class_check_as_none() -> None:
    assert check({"1": node("Number", value=1), "2": node("Choosy", size=1, free=1, linked=["1", 0])}).error is None


def test_check_that_raises_is_told() -> None:
    (told,) = faults({"1": node("Choosy", size=1, free=99)}, "1")
    assert told["type"] == "exception_during_validation" and told["details"] == "boom"
    assert told["extra_info"]["exception_type"] == "RuntimeError" and told["extra_info"]["traceback"]


def test_unknown_classes_anywhere_fail_the_whole_prompt_all_at_once() -> None:
    prompt = shown(node("Number", value=1)) | {"8": node("Nope"), "9": node("Nada")}
    checked = check(prompt)
    assert checked.outputs == [] and checked.error is not None and checked.error["type"] == "missing_node_type"
    assert set(checked.node_errors) == {"8", "9"} and "Nope, Nada" in checked.error["message"]
    assert len(fault_lines(checked, prompt)) == 2


@pytest.mark.parametrize("entry", [3, None, {}, {"inputs": {}}, {"class_type": 5, "inputs": {}}, {"class_type": "Number"}])
def test_entry_that_is_no_node_fails_the_whole_prompt(entry: Any) -> None:
    checked = check({"1": entry})
    assert checked.error is not None and checked.error["type"] == "invalid_prompt" and fault_lines(checked, {"1": entry})


def test_prompt_without_outputs_and_no_prompt_are_told() -> None:
    kinds = [check(prompt).error["type"] for prompt in ({"1": node("Number", value=1)}, {}, None, [])]  # type: ignore[index]
    assert kinds == ["prompt_no_outputs", "no_prompt", "no_prompt", "no_prompt"]


def test_good_outputs_run_beside_a_faulty_one() -> None:
    prompt = shown(node("Number", value=1)) | {"3": node("Number", value=999), "4": node("Show", value=["3", 0])}
    checked = check(prompt)
    assert checked.outputs == ["2"] and checked.error is None
    assert checked.node_errors["3"]["dependent_outputs"] == ["4"] and checked.node_errors["3"]["class_type"] == "Number"


def test_all_outputs_faulty_fails_the_prompt() -> None:
    checked = check(shown(node("Number", value=999)))
    assert checked.outputs == [] and checked.error is not None and checked.error["type"] == "prompt_outputs_failed_validation"


def test_what_no_wanted_output_needs_is_not_checked() -> None:
    prompt = shown(node("Number", value=1)) | {"3": node("Number", value=999), "4": node("Show", value=["3", 0])}
    assert check(prompt, targets=["2"]) == Validation(["2"], None, {})
    assert check(shown(node("Number", value=1)) | {"3": node("Number")}).node_errors == {}


def test_circle_is_found_and_its_nodes_named() -> None:
    prompt = {"1": node("Add", a=["3", 0]), "2": node("Add", a=["1", 0]), "3": node("Add", a=["2", 0]), "4": node("Show", value=["3", 0])}
    checked = check(prompt)
    (told,) = [told for error in checked.node_errors.values() for told in error["errors"]]
    assert told["type"] == "dependency_cycle" and sorted(told["extra_info"]["cycle_nodes"]) == ["1", "2", "3"]
    assert told["extra_info"]["input_name"] == "a" and checked.error is not None


def test_every_output_behind_a_circle_is_refused_wherever_it_enters() -> None:
    prompt = {"1": node("Add", a=["2", 0], b=["3", 0]), "2": node("Add", a=["1", 0]), "3": node("Add", a=["1", 0])}
    prompt |= {f"out{index}": node("Show", value=[str(index), 0]) for index in (2, 1, 3)}
    checked = check(prompt)
    assert checked.outputs == [] and checked.error is not None


def test_two_circles_are_both_named_and_a_node_may_circle_itself() -> None:
    prompt = {"1": node("Add", a=["1", 0]), "2": node("Add", a=["3", 0], b=["1", 0]), "3": node("Add", a=["2", 0])} | ends("2")
    told = [fault["details"] for error in check(prompt).node_errors.values() for fault in error["errors"]]
    assert len(told) == 2 and "1 -> 1" in told


def test_chain_of_thousands_is_checked_without_deep_recursion() -> None:
    prompt = {"0": node("Number", value=1)} | {str(index): node("Add", a=[str(index - 1), 0]) for index in range(1, 5000)} | ends("4999")
    assert check(prompt).error is None
    prompt["0"] = node("Add", a=["4999", 0])
    assert len(check(prompt).node_errors) == 1


def test_fault_lines_name_node_title_and_input() -> None:
    prompt = shown(node("Number", value=999) | {"_meta": {"title": "My number"}})
    assert fault_lines(check(prompt), prompt) == ['node 1 "My number", input value: 999 is above the maximum 100.']
    prompt["1"]["inputs"] = {}
    assert fault_lines(check(prompt), prompt) == ['node 1 "My number", input value: A required input is missing.']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["1", "2", "Show", "Number"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "a", "class_type", "inputs", "1"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ENTRIES = st.builds(
    lambda kind, values: {"class_type": kind, "inputs": values},
    st.sampled_from(["Number", "Add", "Show", "Choose", "Collect", "Choosy"]),
    st.dictionaries(
        st.sampled_from(["value", "a", "b", "first", "items", "word", "size", "free"]),
        JSON | st.tuples(st.sampled_from("123"), st.just(0)).map(list),
        max_size=3,
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from("123"), ENTRIES | JSON, max_size=3))
def test_no_prompt_makes_validation_crash_and_every_refusal_has_a_line(prompt: dict[str, Any]) -> None:
    checked = check(prompt)
    assert checked.outputs or checked.error is not None
    assert bool(fault_lines(checked, prompt)) == bool(checked.error or checked.node_errors)


def ends(source: str) -> dict[str, Any]:
    return {"end": node("Show", value=[source, 0])}
