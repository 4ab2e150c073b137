"""What a node is called with: literals, values from links, hidden inputs, and one call per item of the longest list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadValueError
from .blocker import ExecutionBlocker
from .prompt_graph import DynamicPrompt, LinkValues, is_link, unwrapped
from .registry import Definition

Lists = dict[str, list[Any]]


@dataclass(frozen=True)
class NodeContext:
    """What hidden inputs are made of. extra_data is what was sent beside the prompt (`extra_pnginfo`, ...)."""

    graph: DynamicPrompt
    extra_data: Mapping[str, Any]

    def hidden(self, kind: str, node_id: str) -> Any:
        """Value of a hidden input, by what it asks for; credentials come from extra_data, None when absent."""
        if kind == "UNIQUE_ID":
            return node_id
        if kind == "PROMPT":
            return self.graph.get_original_prompt()
        if kind == "DYNPROMPT":
            return self.graph
        return self.extra_data.get(kind.lower())


def gather_inputs(node_id: str, node: Any, definition: Definition, context: NodeContext, values: LinkValues) -> tuple[Lists, set[str]]:
    """(every input as a list of values, names of the lazy inputs that are not evaluated yet and stand as None).

    values(source id, slot) gives the list that an output holds, or None while its node has not run.
    """
    inputs: Lists = {}
    waiting = set()
    for name, value in node["inputs"].items():
        if name in definition.hidden:
            continue
        if not is_link(value) or name in definition.raw_links:
            inputs[name] = [unwrapped(value)]
            continue
        received = values(value[0], value[1])
        if received is None:
            waiting.add(name)
        inputs[name] = [None] if received is None else received
    for name, kind in definition.hidden.items():
        inputs[name] = [context.hidden(kind, node_id)]
    return inputs, waiting


def constant_inputs(node_id: str, node: Any, definition: Definition, context: NodeContext) -> dict[str, Any]:
    """As gather_inputs, for one call before anything ran: links are None."""
    inputs, _ = gather_inputs(node_id, node, definition, context, lambda source, slot: None)
    return dict(inputs) if definition.input_is_list else {name: values[0] for name, values in inputs.items()}


def calls(inputs: Lists, input_is_list: bool) -> Iterator[dict[str, Any]]:
    """Keyword arguments of each call: one with whole lists, or one per index, shorter lists repeating their last item.

    Raises BadValueError when an input got an empty list and items are wanted one by one.
    """
    if input_is_list:
        yield dict(inputs)
        return
    for name, values in inputs.items():
        if not values:
            raise BadValueError(f"Input {name} received an empty list.", way_out="Check the node it is linked to.")
    for index in range(max((len(values) for values in inputs.values()), default=1)):
        yield {name: values[min(index, len(values) - 1)] for name, values in inputs.items()}


def blocker_among(arguments: Mapping[str, Any], input_is_list: bool) -> ExecutionBlocker | None:
    """The first blocker that a call would receive."""
    for value in arguments.values():
        for item in value if input_is_list else (value,):
            if isinstance(item, ExecutionBlocker):
                return item
    return None
