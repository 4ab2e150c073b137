"""What the node classes say about themselves, read once and kept."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import WorkflowError
from .node_code import NodeCodeError, call
from .socket_types import COMBO, type_name

log = logging.getLogger("kintsugi")


@dataclass(frozen=True)
class InputDefinition:
    """One required or optional input. `spec` is the entry of INPUT_TYPES as the class wrote it."""

    name: str
    type: str
    options: Mapping[str, Any]
    required: bool
    choices: Sequence[Any] | None
    spec: Any

    @property
    def lazy(self) -> bool:
        """Whether the node asks for this input only when it needs it."""
        return bool(self.options.get("lazy"))


@dataclass(frozen=True)
class Definition:
    """A V1 node class: its inputs (required first, in order), outputs and flags. `sections` is what INPUT_TYPES gave."""

    class_type: str
    node_class: Any
    sections: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, InputDefinition]
    hidden: Mapping[str, str]
    output_types: tuple[str, ...]
    output_is_list: tuple[bool, ...]

    @cached_property
    def function(self) -> str:
        """Name of the method that does the work."""
        return str(self.node_class.FUNCTION)

    @cached_property
    def is_output(self) -> bool:
        """Whether a run may end at this node."""
        return bool(getattr(self.node_class, "OUTPUT_NODE", False))

    @cached_property
    def is_async(self) -> bool:
        """Whether its function is a coroutine."""
        return inspect.iscoroutinefunction(getattr(self.node_class, self.function, None))

    @cached_property
    def input_is_list(self) -> bool:
        """Whether it takes lists whole, not value by value."""
        return bool(getattr(self.node_class, "INPUT_IS_LIST", False))

    @cached_property
    def resends_ui(self) -> bool:
        """Its `ui` is announced even when its result was cached."""
        return self.is_output or bool(getattr(self.node_class, "HAS_INTERMEDIATE_OUTPUT", False))

    @cached_property
    def cached_per_node(self) -> bool:
        """Two equal nodes of this class are not the same node: its id counts in the cache key."""
        return bool(getattr(self.node_class, "NOT_IDEMPOTENT", False)) or "UNIQUE_ID" in self.hidden.values()

    @cached_property
    def lazy_inputs(self) -> frozenset[str]:
        """Names of its lazy inputs."""
        return frozenset(name for name, entry in self.inputs.items() if entry.lazy)

    @cached_property
    def raw_links(self) -> frozenset[str]:
        """Inputs that want the link itself, not what comes through it."""
        return frozenset(name for name, entry in self.inputs.items() if entry.options.get("rawLink"))


class Registry:
    """The node classes that workflows may use, by class type.

    classes: V1 node classes by id. display_names: what a person reads on them. Definitions are kept until
    `refresh()`, which makes choices (files, weights) be listed anew.
    """

    def __init__(self, classes: Mapping[str, type], display_names: Mapping[str, str] | None = None) -> None:
        self._classes = dict(classes)
        self._display_names = dict(display_names or {})
        self._definitions: dict[str, Definition] = {}

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._classes

    def refresh(self) -> None:
        """Forget what INPUT_TYPES said, since choices may have changed."""
        self._definitions.clear()

    def display_name(self, class_type: str) -> str:
        """The title of a node class, or its id."""
        return self._display_names.get(class_type, class_type)

    def definition(self, class_type: str) -> Definition:
        """Raises WorkflowError for an unknown class and for one whose INPUT_TYPES fails."""
        known = self._definitions.get(class_type)
        if known is None:
            known = self._definitions[class_type] = self._read(class_type)
        return known

    def _read(self, class_type: str) -> Definition:
        if class_type not in self._classes:
            raise WorkflowError(f"There is no node class {class_type!r}.", way_out="Run `kintsugi nodes` to see which there are.")
        try:
            return read_definition(class_type, self._classes[class_type])
        except NodeCodeError as raised:
            raise WorkflowError(f"The node class {class_type} cannot tell its inputs: {raised}") from raised.error

    def object_info(self) -> dict[str, dict[str, Any]]:
        """Every class as the answer of /object_info describes it, choices listed anew; failing classes are left out."""
        self.refresh()
        entries = {}
        for class_type in self._classes:
            try:
                entries[class_type] = describe(self.definition(class_type), self.display_name(class_type))
            except WorkflowError as error:
                log.warning("%s It is left out.", error)
        return entries


def read_definition(class_type: str, node_class: Any) -> Definition:
    """Raises NodeCodeError when INPUT_TYPES does."""
    sections = call(node_class.INPUT_TYPES)
    inputs = {
        name: read_input(name, spec, required=section == "required")
        for section in ("required", "optional")
        for name, spec in sections.get(section, {}).items()
    }
    hidden = {name: _hidden_kind(spec) for name, spec in sections.get("hidden", {}).items()}
    returned = tuple(getattr(node_class, "RETURN_TYPES", ()))
    is_list = tuple(getattr(node_class, "OUTPUT_IS_LIST", ())) or (False,) * len(returned)
    return Definition(class_type, node_class, sections, inputs, hidden, tuple(type_name(kind) for kind in returned), is_list)


def read_input(name: str, spec: Any, required: bool) -> InputDefinition:
    """`(type,)`, `(type, options)`, `([choice, ...], options)` or `("COMBO", {"options": [...]})`."""
    options = spec[1] if len(spec) > 1 and spec[1] else {}
    kind = type_name(spec[0])
    choices = None
    if isinstance(spec[0], (list, tuple)):
        choices = spec[0]
    elif kind == COMBO:
        choices = options.get("options")
    return InputDefinition(name, kind, options, required, choices, spec)


def _hidden_kind(spec: Any) -> str:
    """`"PROMPT"`, or the newer spelling `("PROMPT",)`."""
    return str(spec if isinstance(spec, str) else spec[0])


def describe(definition: Definition, display_name: str) -> dict[str, Any]:
    """One entry of /object_info."""
    node_class = definition.node_class
    entry = {
        "input": definition.sections,
        "input_order": {section: list(names) for section, names in definition.sections.items()},
        "output": list(getattr(node_class, "RETURN_TYPES", ())),
        "output_is_list": list(definition.output_is_list),
        "output_name": list(getattr(node_class, "RETURN_NAMES", definition.output_types)),
        "name": definition.class_type,
        "display_name": display_name,
        "description": getattr(node_class, "DESCRIPTION", ""),
        "python_module": getattr(node_class, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node_class, "CATEGORY", "sd"),
        "output_node": definition.is_output,
        "search_aliases": list(getattr(node_class, "SEARCH_ALIASES", ())),
    }
    if hasattr(node_class, "OUTPUT_TOOLTIPS"):
        entry["output_tooltips"] = list(node_class.OUTPUT_TOOLTIPS)
    for flag in ("DEPRECATED", "EXPERIMENTAL", "API_NODE", "DEV_ONLY", "ESSENTIALS_CATEGORY"):
        if getattr(node_class, flag, None):
            entry[flag.lower()] = getattr(node_class, flag)
    return entry
