"""Cache keys: one hash per node, made from its own class and constants and the hashes of the nodes it is linked to."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Any

from ..errors import WorkflowError
from .node_code import NodeCodeError, call
from .node_inputs import NodeContext, constant_inputs
from .prompt_graph import DynamicPrompt, find_cycle, is_link, sources, unwrapped
from .registry import Definition, Registry

log = logging.getLogger("kintsugi")

_encoder = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))
_run_once = itertools.count()


class Signatures:
    """Signature of each node of a prompt, each computed once.

    Two nodes have the same signature when class, constants, IS_CHANGED results and everything upstream are the same;
    their ids do not count, except for classes with UNIQUE_ID or NOT_IDEMPOTENT. A node whose IS_CHANGED is NaN or
    fails, or whose constants are not JSON, gets one that is never met again: it always runs.

    given: nodes whose signatures are never met again either, for their values come from outside the prompt. anew: nodes whose
    signatures no other run has.
    """

    def __init__(
        self,
        graph: DynamicPrompt,
        registry: Registry,
        context: NodeContext,
        given: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        self._graph = graph
        self._registry = registry
        self._context = context
        self._given, self._anew, self._run = given, anew, next(_run_once)
        self._known: dict[str, str] = {}

    def __len__(self) -> int:
        """How many hashes were computed."""
        return len(self._known)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._known

    def items(self) -> Iterable[tuple[str, str]]:
        """(node id, signature) of every node computed so far."""
        return self._known.items()

    def known(self) -> set[str]:
        """All signatures computed so far."""
        return set(self._known.values())

    def of(self, node_id: str) -> str:
        """Raises WorkflowError for a circle and for a link to a node that does not exist."""
        known = self._known.get(node_id)
        return known if known is not None else self._compute(node_id)

    def _compute(self, root: str) -> str:
        stack, begun = [root], set()
        while stack:
            node_id = stack[-1]
            if node_id in self._known:
                stack.pop()
                continue
            missing = [source for source in sources(self._node(node_id)) if source not in self._known]
            if not missing:
                self._known[node_id] = self._hash(node_id)
            elif node_id in begun:
                cycle = find_cycle([root], lambda each: sources(self._node(each))) or []
                raise WorkflowError(f"Nodes depend on each other in a circle: {' -> '.join(cycle)}.", way_out="Remove one of these links.")
            else:
                begun.add(node_id)
                stack.extend(reversed(missing))
        return self._known[root]

    def _node(self, node_id: str) -> Any:
        if not self._graph.has_node(node_id):
            raise WorkflowError(f"There is a link to node {node_id}, which does not exist.")
        return self._graph.get_node(node_id)

    def _hash(self, node_id: str) -> str:
        if node_id in self._given:
            return f"once-{next(_run_once)}"
        node = self._graph.get_node(node_id)
        definition = self._registry.definition(node["class_type"])
        constants, links = {}, {}
        for name, value in node["inputs"].items():
            if is_link(value):
                links[name] = (self._known[value[0]], value[1])
            else:
                constants[name] = unwrapped(value)
        try:
            own_id = node_id if definition.cached_per_node else None
            run = self._run if node_id in self._anew else None
            text = _encoder.encode([definition.class_type, own_id, run, self._changed(node_id, node, definition), constants, links])
        except (TypeError, ValueError):
            return f"once-{next(_run_once)}"
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def _changed(self, node_id: str, node: Any, definition: Definition) -> Any:
        """Result of IS_CHANGED, called with the node's constants and None for links; NaN when it fails."""
        is_changed = getattr(definition.node_class, "IS_CHANGED", None)
        if is_changed is None:
            return None
        try:
            result = call(is_changed, **constant_inputs(node_id, node, definition, self._context))
        except NodeCodeError as raised:
            log.warning("IS_CHANGED of node %s (%s) failed, so the node runs again: %s", node_id, definition.class_type, raised)
            return float("nan")
        return result.hex() if isinstance(result, bytes) else result
