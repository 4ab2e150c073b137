"""Subgraph instances opened into scopes, each with the values that its instance gives to promoted widgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import WorkflowError
from .ui_format import INPUT_NODE, UiGraph, UiLink, UiNode, UiSubgraph
from .widgets import stored_by_name

REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
VIRTUAL = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
SUBGRAPH_INPUT = "-1"
_PREVIEW_MARK = "$$"

Definitions = Mapping[str, UiSubgraph]
Proxied = dict[tuple[str, str], Any]


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph being flattened: the root, or the inside of one instance.

    prefix: what its node ids begin with in the prompt. promoted: the instance's own values by subgraph input name.
    proxied: values by (node id, widget) that replace those of nodes here. inner: the opened instances by node id.
    """

    graph: UiGraph
    prefix: str
    parent: Scope | None
    instance: UiNode | None
    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]
    promoted: Mapping[str, Any]
    proxied: Proxied
    inner: dict[str, Scope] = field(default_factory=dict)

    def execution_id(self, node: UiNode) -> str:
        """The id that the node has in the prompt."""
        return self.prefix + node.id

    def input_name(self, slot: int) -> str:
        """Name of input `slot` of the instance around this; empty at the root and beyond the last input."""
        inputs = self.graph.inputs if isinstance(self.graph, UiSubgraph) else []
        return inputs[slot].name if slot < len(inputs) else ""


def open_scopes(root: UiGraph) -> tuple[Scope, Definitions]:
    """The root's scope with every instance that is neither muted nor bypassed opened, and all definitions by id.

    Raises WorkflowError when a subgraph contains itself.
    """
    definitions = {subgraph.id: subgraph for subgraph in _all_definitions(root)}
    scope = _scope(root, "", None, None, {}, {})
    _open_instances(scope, definitions, ())
    return scope, definitions


def exported_nodes(scope: Scope) -> Iterator[tuple[Scope, UiNode]]:
    """Every node that becomes a node of the prompt: not virtual, muted or bypassed, instances replaced by their insides."""
    for node in scope.graph.nodes:
        if node.id in scope.inner:
            yield from exported_nodes(scope.inner[node.id])
        elif not node.dropped and node.type not in VIRTUAL:
            yield scope, node


def _all_definitions(graph: UiGraph) -> Iterator[UiSubgraph]:
    for subgraph in graph.definitions.subgraphs:
        yield subgraph
        yield from _all_definitions(subgraph)


def _scope(
    graph: UiGraph, prefix: str, parent: Scope | None, instance: UiNode | None, promoted: Mapping[str, Any], proxied: Proxied
) -> Scope:
    nodes = {node.id: node for node in graph.nodes}
    links = {link.id: link for link in graph.links}
    return Scope(graph, prefix, parent, instance, nodes, links, promoted, proxied)


def _open_instances(scope: Scope, definitions: Definitions, around: tuple[str, ...]) -> None:
    for node in scope.graph.nodes:
        if node.type not in definitions or node.dropped:
            continue
        subgraph = definitions[node.type]
        if subgraph.id in around:
            raise WorkflowError(
                f"Subgraph {subgraph.name!r} contains itself.",
                where=f"node {scope.execution_id(node)}",
                way_out="Take the instance out of its own definition.",
            )
        promoted, proxied = _instance_values(node, subgraph, scope, definitions)
        inside = _scope(subgraph, f"{scope.execution_id(node)}:", scope, node, promoted, proxied)
        scope.inner[node.id] = inside
        _open_instances(inside, definitions, (*around, subgraph.id))


def _instance_values(node: UiNode, subgraph: UiSubgraph, scope: Scope, definitions: Definitions) -> tuple[dict[str, Any], Proxied]:
    """Values the instance gives to its subgraph inputs by name, and to inner widgets by (node id, widget)."""
    proxies = [proxy for proxy in node.properties.proxies if not proxy[1].startswith(_PREVIEW_MARK)]
    input_names = {entry.name for entry in subgraph.inputs}
    if proxies:
        values = node.widgets_values if isinstance(node.widgets_values, list) else _values_by_name(node, proxies)
        stored = {proxy: value for proxy, value in zip(proxies, values, strict=False) if value is not None}
        promoted = {name: value for (target, name), value in stored.items() if target == SUBGRAPH_INPUT}
        proxied = {proxy: value for proxy, value in stored.items() if proxy[0] != SUBGRAPH_INPUT}
    else:
        names = promoted_inputs(subgraph, definitions)
        promoted = {name: value for name, value in stored_by_name(node, names).items() if name in names and value is not None}
        proxied = {}
    for (target, name), value in scope.proxied.items():
        if target == node.id:
            proxied |= {proxy: value for proxy in proxies if proxy[1] == name and proxy[0] != SUBGRAPH_INPUT}
            promoted |= {name: value} if name in input_names else {}
    return promoted, proxied


def _values_by_name(node: UiNode, proxies: list[tuple[str, str]]) -> list[Any]:
    stored = stored_by_name(node, [name for _, name in proxies])
    return [stored.get(name) for _, name in proxies]


def promoted_inputs(subgraph: UiSubgraph, definitions: Definitions, around: tuple[str, ...] = ()) -> list[str]:
    """Names of the subgraph inputs that show as widgets on an instance: those linked to a widget inside, at any depth.

    around: ids of the definitions this one is met in, so that one which contains itself does not go on for ever.
    """
    nodes = {node.id: node for node in subgraph.nodes}
    promoted = set()
    for link in subgraph.links:
        target = nodes.get(link.target_id)
        if link.origin_id != INPUT_NODE or target is None:
            continue
        for entry in target.inputs:
            if entry.link == link.id and (entry.widget or _promoted_by(target, entry.name, definitions, (*around, subgraph.id))):
                promoted.add(link.origin_slot)
    return [entry.name for slot, entry in enumerate(subgraph.inputs) if slot in promoted]


def _promoted_by(node: UiNode, name: str, definitions: Definitions, around: tuple[str, ...]) -> bool:
    inner = definitions.get(node.type)
    return inner is not None and inner.id not in around and name in promoted_inputs(inner, definitions, around)
