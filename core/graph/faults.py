"""The shapes in which faults of a prompt are told, as ComfyUI's clients read them, and as lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .prompt_graph import node_title
from .registry import InputDefinition

Fault = dict[str, Any]
MOST_LISTED_CHOICES = 20


@dataclass
class Validation:
    """outputs: the output nodes that can be run. error: the fault of the prompt as a whole, None when something can run.

    node_errors: per faulty node `{"errors": [fault, ...], "dependent_outputs": [ids], "class_type": str}`, also when
    other outputs are good. A fault is `{"type", "message", "details", "extra_info"}`.
    """

    outputs: list[str] = field(default_factory=list)
    error: Fault | None = None
    node_errors: dict[str, dict[str, Any]] = field(default_factory=dict)


def fault(kind: str, message: str, details: str = "", **extra_info: Any) -> Fault:
    """A fault in the form that ComfyUI's clients expect."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def input_fault(kind: str, message: str, details: str, entry: InputDefinition, **extra_info: Any) -> Fault:
    """A fault of one input. Its configuration is left out when it would list very many choices."""
    config = None if entry.choices is not None and len(entry.choices) > MOST_LISTED_CHOICES else entry.spec
    return fault(kind, message, details, input_name=entry.name, input_config=config, **extra_info)


def fault_lines(validation: Validation, prompt: Mapping[str, Any]) -> list[str]:
    """One line per fault: node id, title and input, then what is wrong. The prompt's own fault only when no node has one."""
    lines = []
    for node_id, told in validation.node_errors.items():
        node = prompt.get(node_id)
        title = node_title(node) if isinstance(node, Mapping) else ""
        place = f'node {node_id} "{title}"' if title else f"node {node_id}"
        lines += [_line(place, each) for each in told["errors"]]
    if not lines and validation.error is not None:
        lines.append(_line("", validation.error))
    return lines


def _line(place: str, told: Fault) -> str:
    name = told["extra_info"].get("input_name")
    where = ", ".join(part for part in (place, f"input {name}" if name else "") if part)
    details = "" if told["details"] in ("", name) else f" ({told['details']})"
    text = f"{told['message'].rstrip('.')}{details}."
    return f"{where}: {text}" if where else text
