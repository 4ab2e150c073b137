"""What a node returned, in one form: values per output, words for the person (`ui`), and a graph to run in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadValueError
from .blocker import ExecutionBlocker
from .prompt_graph import LinkValues, is_link
from .registry import Definition

Outputs = list[list[Any]]


@dataclass(frozen=True)
class Returned:
    """One call's result. values: one per output; with `expand` they may be links into the new nodes."""

    values: Sequence[Any]
    ui: Mapping[str, Any] | None = None
    expand: Mapping[str, Any] | None = None


def read_returned(value: Any, definition: Definition) -> Returned:
    """A tuple, a dict of `result`, `ui` and `expand`, or a blocker for every output. BadValueError for anything else."""
    if isinstance(value, dict):
        return Returned(_result(value.get("result"), definition), value.get("ui"), value.get("expand"))
    return Returned(_result(value, definition))


def _result(value: Any, definition: Definition) -> Sequence[Any]:
    count = len(definition.output_types)
    if isinstance(value, ExecutionBlocker):
        return (value,) * count
    if count == 0:
        return ()
    if not isinstance(value, (tuple, list)) or len(value) < count:
        found = f"{len(value)} values" if isinstance(value, (tuple, list)) else type(value).__name__
        raise BadValueError(f"{definition.class_type} returned {found}, expected a tuple of {count}.")
    return value


def merge_outputs(results: Sequence[Returned], definition: Definition, linked: LinkValues | None = None) -> Outputs:
    """Per output the values of all calls in order; an output that is a list itself adds its items.

    linked: values behind a link, once expanded nodes have run; a link in an expanding call's result adds all of them.
    """
    merged: Outputs = [[] for _ in definition.output_types]
    for result in results:
        for slot, into in enumerate(merged):
            value = result.values[slot]
            if linked is not None and result.expand is not None and is_link(value):
                into.extend(linked(value[0], value[1]) or ())
            elif definition.output_is_list[slot] and not isinstance(value, ExecutionBlocker):
                into.extend(value)
            else:
                into.append(value)
    return merged


def merge_ui(results: Sequence[Returned]) -> dict[str, list[Any]] | None:
    """Per key of the first `ui`, the lists of all calls one after the other; None when no call had one."""
    shown = [result.ui for result in results if result.ui is not None]
    if not shown:
        return None
    return {key: [item for ui in shown for item in ui.get(key, ())] for key in shown[0]}
