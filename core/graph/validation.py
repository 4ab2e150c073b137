"""Whether a prompt can run, walking back from its outputs, and every fault in it at once, in ComfyUI's shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .faults import Fault, Validation, fault, fault_lines
from .input_checks import input_faults
from .prompt_graph import find_cycle, is_link
from .registry import Registry

__all__ = ["Validation", "fault_lines", "validate"]


def validate(prompt: Any, registry: Registry, targets: Collection[str] | None = None, given: Collection[str] = ()) -> Validation:
    """Checks a prompt (API format) for its output nodes, or for those of them in `targets`.

    given: nodes that will not run, so that their inputs do not matter. Literals are converted to their input's type in place. A node
    that no wanted output needs is checked for a known class only. Never raises for what a prompt may contain.
    """
    if not isinstance(prompt, dict) or not prompt:
        return Validation(error=fault("no_prompt", "There is no prompt: expected an object of nodes"))
    broken = _broken_nodes(prompt, registry)
    if broken:
        return broken
    outputs = [node_id for node_id, node in prompt.items() if registry.definition(node["class_type"]).is_output]
    wanted = [node_id for node_id in outputs if targets is None or node_id in targets]
    if not wanted:
        return Validation(error=fault("prompt_no_outputs", "The prompt has no output node, so there is nothing to run"))
    return _Check(prompt, registry, given).outputs(wanted)


def _broken_nodes(prompt: dict[str, Any], registry: Registry) -> Validation | None:
    """The answer when entries are no nodes or their classes unknown, all listed; None when there are none."""
    malformed = [node_id for node_id, node in prompt.items() if not _is_node(node)]
    if malformed:
        told = fault("invalid_prompt", "Entries of the prompt are not nodes with class_type and inputs", _listed(malformed))
        return _whole(told, {node_id: _node_error([told], "") for node_id in malformed})
    unknown = [node_id for node_id, node in prompt.items() if node["class_type"] not in registry]
    if not unknown:
        return None
    classes = ", ".join(dict.fromkeys(prompt[node_id]["class_type"] for node_id in unknown))
    errors = {}
    for node_id in unknown:
        class_type = prompt[node_id]["class_type"]
        told = fault("missing_node_type", f"There is no node class {class_type}", class_type=class_type, node_id=node_id)
        errors[node_id] = _node_error([told], class_type)
    message = f"The prompt has nodes of unknown classes: {classes}"
    return _whole(fault("missing_node_type", message, _listed(unknown)), errors)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _listed(node_ids: Iterable[str]) -> str:
    return "nodes " + ", ".join(node_ids)


def _whole(error: Fault, node_errors: dict[str, dict[str, Any]]) -> Validation:
    return Validation([], error, node_errors)


def _node_error(errors: list[Fault], class_type: str, dependent: Iterable[str] = ()) -> dict[str, Any]:
    return {"errors": errors, "dependent_outputs": list(dependent), "class_type": class_type}


class _Check:
    """Each node is checked once, however many outputs need it."""

    def __init__(self, prompt: dict[str, Any], registry: Registry, given: Collection[str]) -> None:
        self._prompt, self._registry, self._given = prompt, registry, given
        self._faults: dict[str, list[Fault]] = {}

    def outputs(self, wanted: list[str]) -> Validation:
        """Which of these output nodes may run, and the faults of everything they need."""
        order = self._upstream_first(wanted)
        for node_id in order:
            self._faults[node_id] = [] if node_id in self._given else self._input_faults(node_id)
        self._add_cycles()
        bad = self._downstream([node_id for node_id in order if self._faults[node_id]])
        errors = self._node_errors([output for output in wanted if output in bad])
        good = [output for output in wanted if output not in bad]
        if good:
            return Validation(good, None, errors)
        lines = fault_lines(Validation(node_errors=errors), self._prompt)
        return _whole(fault("prompt_outputs_failed_validation", "No output of the prompt can be run", "\n".join(lines)), errors)

    def _input_faults(self, node_id: str) -> list[Fault]:
        definition = self._registry.definition(self._prompt[node_id]["class_type"])
        return input_faults(node_id, self._prompt, definition, self._registry)

    def _sources(self, node_id: str) -> list[str]:
        """Nodes of the prompt that this one is linked to; none for one whose values are given."""
        if node_id in self._given:
            return []
        values = self._prompt[node_id]["inputs"].values()
        return list(dict.fromkeys(value[0] for value in values if is_link(value) and value[0] in self._prompt))

    def _upstream_first(self, roots: Iterable[str]) -> list[str]:
        """Every node the roots need, each after those it is linked to (as far as a circle allows)."""
        order: dict[str, None] = {}
        entered: set[str] = set()
        stack = list(reversed(list(roots)))
        while stack:
            node_id = stack[-1]
            if node_id not in entered:
                entered.add(node_id)
                stack += [source for source in reversed(self._sources(node_id)) if source not in entered]
            else:
                order[stack.pop()] = None
        return list(order)

    def _downstream(self, roots: Iterable[str]) -> set[str]:
        """The roots and every checked node that needs one of them."""
        consumers: dict[str, list[str]] = {}
        for node_id in self._faults:
            for source in self._sources(node_id):
                consumers.setdefault(source, []).append(node_id)
        reached, stack = set(), list(roots)
        while stack:
            node_id = stack.pop()
            if node_id not in reached:
                reached.add(node_id)
                stack += consumers.get(node_id, ())
        return reached

    def _add_cycles(self) -> None:
        """One fault per circle, at its first node. A node counts in one circle only."""
        named: set[str] = set()

        def unnamed_sources(node_id: str) -> list[str]:
            return [] if node_id in named else [source for source in self._sources(node_id) if source not in named]

        while circle := find_cycle(self._faults, unnamed_sources):
            told = fault("dependency_cycle", "Nodes depend on each other in a circle", " -> ".join(circle), cycle_nodes=circle[:-1])
            told["extra_info"]["input_name"] = self._input_linked_to(circle[0], circle[1])
            self._faults[circle[0]].append(told)
            named.update(circle)

    def _input_linked_to(self, node_id: str, source: str) -> str:
        inputs = self._prompt[node_id]["inputs"].items()
        return next(name for name, value in inputs if is_link(value) and value[0] == source)

    def _node_errors(self, bad_outputs: list[str]) -> dict[str, dict[str, Any]]:
        dependent: dict[str, list[str]] = {}
        for output in bad_outputs:
            for node_id in self._upstream_first([output]):
                dependent.setdefault(node_id, []).append(output)
        return {
            node_id: _node_error(faults, self._prompt[node_id]["class_type"], dependent.get(node_id, ()))
            for node_id, faults in self._faults.items()
            if faults
        }
