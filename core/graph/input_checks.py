"""The checks of one node's inputs: presence, links, types, ranges, choices, and the class's own VALIDATE_INPUTS."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from .faults import MOST_LISTED_CHOICES, Fault, fault, input_fault
from .node_code import NodeCodeError, call
from .prompt_graph import WRAPPED, is_link, unwrapped
from .registry import Definition, InputDefinition, Registry
from .socket_types import COMBO, accepts

_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_RECEIVED_TYPES = "input_types"


def input_faults(node_id: str, prompt: dict[str, Any], definition: Definition, registry: Registry) -> list[Fault]:
    """All faults of a node's inputs; literals are converted to their type in place."""
    inputs = prompt[node_id]["inputs"]
    own = _OwnCheck(definition)
    faults: list[Fault] = []
    received_types: dict[str, Any] = {}
    for entry in definition.inputs.values():
        if entry.name not in inputs:
            if entry.required:
                faults.append(fault("required_input_missing", "A required input is missing", entry.name, input_name=entry.name))
            continue
        value = inputs[entry.name]
        if isinstance(value, list):
            found, received = _check_link(value, entry, prompt, registry, own.takes_types)
            received_types[entry.name] = received
        else:
            inputs[entry.name], found = _check_literal(value, entry, own.replaces(entry.name))
        faults += found
    return faults + own.faults(inputs, received_types)


def _check_link(
    link: Any, entry: InputDefinition, prompt: dict[str, Any], registry: Registry, types_unchecked: bool
) -> tuple[list[Fault], Any]:
    """(faults of a link, the type that comes through it)."""
    problem = _link_problem(link, prompt, registry)
    if problem:
        return [input_fault("bad_linked_input", f"The link is bad: {problem}", entry.name, entry, received_value=link)], None
    received = registry.definition(prompt[link[0]]["class_type"]).output_types[link[1]]
    if types_unchecked or accepts(received, entry.type):
        return [], received
    details = f"{entry.name}, received {received}, expected {entry.type}"
    told = input_fault(
        "return_type_mismatch", "The linked output has another type", details, entry, received_type=received, linked_node=link
    )
    return [told], received


def _link_problem(link: Any, prompt: dict[str, Any], registry: Registry) -> str:
    if not is_link(link):
        return "expected [node id, output number]"
    if link[0] not in prompt:
        return f"there is no node {link[0]}"
    count = len(registry.definition(prompt[link[0]]["class_type"]).output_types)
    return "" if 0 <= link[1] < count else f"node {link[0]} has {count} outputs, and number {link[1]} is asked for"


def _check_literal(value: Any, entry: InputDefinition, unchecked: bool) -> tuple[Any, list[Fault]]:
    """(the value as its type, faults). A wrapped list stays wrapped, or it could be taken for a link later."""
    content = unwrapped(value)
    if entry.type in _CONVERSIONS:
        try:
            content = value = _CONVERSIONS[entry.type](content)
        except (TypeError, ValueError, OverflowError) as error:
            message = f"{content!r} cannot be read as {entry.type}"
            extra = {"received_value": content, "exception_message": str(error)}
            return value, [input_fault("invalid_input_type", message, entry.name, entry, **extra)]
    elif isinstance(value, dict) and WRAPPED in value and not isinstance(content, list):
        value = content
    return value, [] if unchecked else _range_faults(content, entry) + _choice_faults(content, entry)


def _range_faults(value: Any, entry: InputDefinition) -> list[Fault]:
    if entry.type not in ("INT", "FLOAT"):
        return []
    low, high = entry.options.get("min"), entry.options.get("max")
    if low is not None and value < low:
        return [input_fault("value_smaller_than_min", f"{value} is below the minimum {low}", entry.name, entry, received_value=value)]
    if high is not None and value > high:
        return [input_fault("value_bigger_than_max", f"{value} is above the maximum {high}", entry.name, entry, received_value=value)]
    return []


def _choice_faults(value: Any, entry: InputDefinition) -> list[Fault]:
    """Lists are accepted, item by item, where several may be selected. A combo without choices is filled elsewhere."""
    if entry.type != COMBO or entry.choices is None:
        return []
    several = isinstance(value, list) and entry.options.get("multi_select")
    strange = [item for item in (value if several else [value]) if item not in entry.choices]
    if not strange:
        return []
    count = len(entry.choices)
    listed = f"the {count} choices" if count > MOST_LISTED_CHOICES else ", ".join(str(choice) for choice in entry.choices) or "no choices"
    details = f"{entry.name}: {strange[0]!r} not in {listed}"
    return [input_fault("value_not_in_list", "The value is not one of the choices", details, entry, received_value=value)]


class _OwnCheck:
    """A class's VALIDATE_INPUTS: the inputs it names (all, with **kwargs) are checked by it instead of by range and choice."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._function = getattr(definition.node_class, "VALIDATE_INPUTS", None)
        parameters = inspect.signature(self._function).parameters.values() if self._function else ()
        self._all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        self._named = {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
        self.takes_types = _RECEIVED_TYPES in self._named

    def replaces(self, name: str) -> bool:
        return self._all or name in self._named

    def faults(self, inputs: dict[str, Any], received_types: dict[str, Any]) -> list[Fault]:
        """Linked inputs arrive as None; `input_types` gets the types that come through them."""
        if self._function is None:
            return []
        names = [name for name in self._definition.inputs if name in inputs and self.replaces(name)]
        arguments = {name: None if is_link(inputs[name]) else unwrapped(inputs[name]) for name in names}
        if self._definition.input_is_list:
            arguments = {name: [value] for name, value in arguments.items()}
        if self.takes_types:
            arguments[_RECEIVED_TYPES] = received_types
        try:
            verdict = call(self._function, **arguments)
        except NodeCodeError as raised:
            lines = traceback.format_tb(raised.error.__traceback__)
            kind = type(raised.error).__name__
            return [
                fault(
                    "exception_during_validation", "The node failed to check its inputs", str(raised), exception_type=kind, traceback=lines
                )
            ]
        if verdict is True:
            return []
        return [self._refused(names, verdict, inputs)]

    def _refused(self, names: list[str], verdict: Any, inputs: dict[str, Any]) -> Fault:
        """The fault is put at the first input the class checks: it does not say which one it means."""
        reason = verdict if isinstance(verdict, str) else ""
        message = "The node refuses its inputs"
        if not names:
            return fault("custom_validation_failed", message, reason)
        entry = self._definition.inputs[names[0]]
        details = f"{entry.name} - {reason}" if reason else entry.name
        return input_fault("custom_validation_failed", message, details, entry, received_value=inputs[entry.name])
