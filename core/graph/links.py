"""Where an input's value really comes from: through reroutes, primitives, bypassed nodes and the walls of subgraphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import WorkflowError
from .registry import Registry
from .socket_types import ANY, connects
from .subgraphs import PRIMITIVE, REROUTE, VIRTUAL, Definitions, Scope
from .ui_format import BYPASS, INPUT_NODE, NEVER, OUTPUT_NODE, UiLink, UiNode
from .widgets import has_widget, primitive_value


@dataclass(frozen=True)
class NodeOutput:
    """Output `slot` of the prompt's node `node`."""

    node: str
    slot: int


@dataclass(frozen=True)
class Literal:
    """A value that a primitive or a promoted widget puts in place of a link."""

    value: Any


Source = NodeOutput | Literal | None


@dataclass(frozen=True)
class _Socket:
    """A place on the way: an input (index into the node's saved inputs) or an output slot."""

    scope: Scope
    node: UiNode
    index: int
    is_output: bool = False

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.scope.execution_id(self.node), self.index, self.is_output


@dataclass(frozen=True)
class _Wire:
    """A link on the way, still to be followed to its origin."""

    scope: Scope
    link: UiLink


_Place = _Socket | _Wire | Source


class LinkTracer:
    """Follows the links of a workflow upstream. `definitions`: its subgraphs by id."""

    def __init__(self, registry: Registry, definitions: Definitions) -> None:
        self._registry = registry
        self._definitions = definitions

    def source(self, scope: Scope, node: UiNode, index: int) -> Source:
        """What feeds saved input `index`: an output, a literal, or None when nothing does (unlinked, muted, cut).

        Where the way ends in nothing outside an instance, the value that the instance itself gives counts. Raises
        WorkflowError when the way goes round in a circle of virtual nodes.
        """
        wanted = node.inputs[index].type
        place: _Place = _Socket(scope, node, index)
        promoted: Source = None
        passed: dict[tuple[str, int, bool], None] = {}
        while isinstance(place, (_Socket, _Wire)):
            if isinstance(place, _Wire):
                promoted = _promoted_value(place) or promoted
                place = _origin(place)
                continue
            if place.key in passed:
                names = " -> ".join(dict.fromkeys(key[0] for key in passed))
                raise WorkflowError(f"Links go round in a circle: nodes {names}.", way_out="Remove one of these links.")
            passed[place.key] = None
            place = self._through_node(place, wanted) if place.is_output else _wire(place)
        return place or promoted

    def _through_node(self, place: _Socket, wanted: str) -> _Place:
        node, scope = place.node, place.scope
        if node.type == PRIMITIVE:
            value = primitive_value(node)
            return None if value is None else Literal(value)
        if node.mode == NEVER:
            return None
        if node.mode == BYPASS:
            index = self._bypass(node, place.index, wanted)
            return None if index is None else _Socket(scope, node, index)
        if node.type == REROUTE:
            return _Socket(scope, node, 0) if node.inputs else None
        if node.type in VIRTUAL:
            return None
        if node.id in scope.inner:
            return _instance_output(scope.inner[node.id], place.index)
        return NodeOutput(scope.execution_id(node), place.index)

    def _bypass(self, node: UiNode, slot: int, wanted: str) -> int | None:
        """Saved index of the input that stands in for output `slot` of a bypassed node; None when none fits or it is unlinked."""
        inputs = self._all_inputs(node)
        if not inputs:
            return None
        if wanted == ANY:
            return inputs[slot if slot < len(inputs) else 0][1]
        produced = node.outputs[slot].type if slot < len(node.outputs) else ANY
        if slot < len(inputs) and connects(inputs[slot][0], produced) and connects(inputs[slot][0], wanted):
            return inputs[slot][1]
        equal = [index for kind, index in inputs if kind == wanted]
        fitting = [index for kind, index in inputs if connects(kind, wanted)]
        return next(iter(equal + fitting), None)

    def _all_inputs(self, node: UiNode) -> list[tuple[str, int | None]]:
        """(type, saved index) of each input as the editor shows them: sockets as saved, then every widget, saved or not."""
        saved = {entry.name: index for index, entry in enumerate(node.inputs)}
        if node.type in self._definitions:
            return [(entry.type, saved.get(entry.name)) for entry in self._definitions[node.type].inputs]
        shown: list[tuple[str, int | None]] = [(entry.type, saved[entry.name]) for entry in node.inputs if entry.widget is None]
        if node.type not in self._registry:
            return shown + [(entry.type, saved[entry.name]) for entry in node.inputs if entry.widget is not None]
        widgets = [entry for entry in self._registry.definition(node.type).inputs.values() if has_widget(entry)]
        return shown + [(entry.type, saved.get(entry.name)) for entry in widgets]


def _wire(place: _Socket) -> _Wire | None:
    link = place.scope.links.get(place.node.inputs[place.index].link or "")
    return _Wire(place.scope, link) if link else None


def _origin(wire: _Wire) -> _Socket | None:
    """The output a link comes from, or the input of the instance around it."""
    scope, link = wire.scope, wire.link
    if link.origin_id == INPUT_NODE:
        return _instance_input(scope, link.origin_slot)
    node = scope.nodes.get(link.origin_id)
    return _Socket(scope, node, link.origin_slot, is_output=True) if node else None


def _instance_input(scope: Scope, slot: int) -> _Socket | None:
    """Input `slot` of the instance around a scope. Saved instances may lack unlinked inputs: found by name."""
    name = scope.input_name(slot)
    if scope.parent is None or scope.instance is None:
        return None
    for index, entry in enumerate(scope.instance.inputs):
        if entry.name == name:
            return _Socket(scope.parent, scope.instance, index)
    return None


def _instance_output(inside: Scope, slot: int) -> _Wire | None:
    for link in inside.graph.links:
        if link.target_id == OUTPUT_NODE and link.target_slot == slot:
            return _Wire(inside, link)
    return None


def _promoted_value(wire: _Wire) -> Literal | None:
    """What the instance around a link gives it, when the link comes from the subgraph's input node."""
    if wire.link.origin_id != INPUT_NODE:
        return None
    name = wire.scope.input_name(wire.link.origin_slot)
    return Literal(wire.scope.promoted[name]) if name in wire.scope.promoted else None
