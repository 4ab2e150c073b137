"""A prompt in API format as a graph that can grow while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

WRAPPED = "__value__"
LinkValues = Callable[[str, int], list[Any] | None]
"""(source id, output slot) -> the values that output holds; None while its node has not run."""


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """`[node id, output slot]`. Every other list has to be wrapped as `{"__value__": [...]}`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def unwrapped(value: Any) -> Any:
    """The value itself where a prompt wraps it, as it does lists."""
    return value[WRAPPED] if isinstance(value, dict) and WRAPPED in value else value


def sources(node: Mapping[str, Any]) -> list[str]:
    """Ids of the nodes that this one's inputs are linked to, each once, in input order."""
    return list(dict.fromkeys(value[0] for value in node["inputs"].values() if is_link(value)))


def node_title(node: Mapping[str, Any]) -> str:
    """The title a person gave the node, else its class."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return str(title or node.get("class_type", ""))


def find_cycle(roots: Iterable[str], sources_of: Callable[[str], Iterable[str]]) -> list[str] | None:
    """Node ids along one circle of dependencies reachable from the roots, first = last; None when there is none."""
    finished: set[str] = set()
    for root in roots:
        path: dict[str, Iterable[str]] = {}
        stack = [root] if root not in finished else []
        while stack:
            node = stack[-1]
            if node not in path:
                path[node] = iter(sources_of(node))
            following = next((source for source in path[node] if source not in finished), None)
            if following is None:
                finished.add(stack.pop())
                del path[node]
            elif following in path:
                around = stack[stack.index(following) :]
                return [*around, following]
            else:
                stack.append(following)
    return None


class DynamicPrompt:
    """The prompt as sent plus the nodes that expansions added. Nodes that ask for DYNPROMPT get this."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._original = prompt
        self._nodes: dict[str, Any] = dict(prompt)
        self._parents: dict[str, str] = {}
        self._display: dict[str, str] = {}

    def get_node(self, node_id: str) -> Any:
        """The node of that id; KeyError when there is none."""
        return self._nodes[node_id]

    def has_node(self, node_id: str) -> bool:
        """Whether there is such a node, original or grown."""
        return node_id in self._nodes

    def all_node_ids(self) -> set[str]:
        """Ids of original and grown nodes."""
        return set(self._nodes)

    def get_original_prompt(self) -> Mapping[str, Any]:
        """The prompt as it was sent."""
        return self._original

    def add_ephemeral_node(self, node_id: str, node: Mapping[str, Any], parent_id: str, display_id: str) -> None:
        """A node made by expansion of `parent_id`, shown to the person as `display_id`."""
        self._nodes[node_id] = node
        self._parents[node_id] = parent_id
        self._display[node_id] = display_id

    def is_ephemeral(self, node_id: str) -> bool:
        """Whether the node grew during the run."""
        return node_id in self._parents

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node whose expansion made it; None for a node of the prompt as sent."""
        return self._parents.get(node_id)

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the prompt as sent from which this one came, at any depth."""
        while node_id in self._parents:
            node_id = self._parents[node_id]
        return node_id

    def get_display_node_id(self, node_id: str) -> str:
        """The node a person sees doing this one's work."""
        while node_id in self._display:
            node_id = self._display[node_id]
        return node_id
