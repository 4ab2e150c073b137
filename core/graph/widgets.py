"""Which stored value belongs to which widget of a node, and how values travel in a prompt."""

from __future__ import annotations

from typing import Any

from .registry import Definition, InputDefinition
from .socket_types import COMBO
from .texts import resolve_dynamic_prompt
from .ui_format import UiNode

WIDGET_TYPES = frozenset({"INT", "FLOAT", "BOOLEAN", "STRING", COMBO, "MARKDOWN", "COLOR", "BOUNDING_BOX", "CURVE"})
UPLOADS = ("image_upload", "video_upload", "audio_upload", "mesh_upload", "animated_image_upload")
SEED_NAMES = ("seed", "noise_seed")
CONTROL, FILTER, UPLOAD = "control_after_generate", "control_filter_list", "upload"
_EMPTY = {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False, "STRING": ""}


def has_widget(entry: InputDefinition) -> bool:
    """A widget shows for this input, unless it is forced to be a socket."""
    return entry.options.get("widgetType", entry.type) in WIDGET_TYPES and not entry.options.get("forceInput")


def stored_order(definition: Definition) -> list[str]:
    """The names that entries of `widgets_values` have, in order; control and upload entries among them."""
    names = []
    for entry in definition.inputs.values():
        if has_widget(entry):
            names += [entry.name, *_companions(entry)]
    if any(entry.required and any(entry.options.get(kind) for kind in UPLOADS) for entry in definition.inputs.values()):
        names.append(UPLOAD)
    return names


def _companions(entry: InputDefinition) -> list[str]:
    """The entries right after a widget's own that say how its value steps between runs."""
    control = entry.options.get(CONTROL)
    if entry.type == "INT" and (control or (control is None and entry.name in SEED_NAMES)):
        return [CONTROL]
    return [CONTROL, FILTER] if entry.type == COMBO and control else []


def widget_values(node: UiNode, definition: Definition) -> dict[str, Any]:
    """Value of every widget by input name: stored by name, else by position, else the default."""
    order = stored_order(definition)
    stored = stored_by_name(node, order)
    return {
        entry.name: stored[entry.name] if entry.name in stored else default_value(entry)
        for entry in definition.inputs.values()
        if has_widget(entry)
    }


def stored_by_name(node: UiNode, order: list[str]) -> dict[str, Any]:
    """What the file has for these names. Named values count only when no name is strange: else the node was another one."""
    if node.widgets_values_named and set(node.widgets_values_named) <= set(order):
        return node.widgets_values_named
    if isinstance(node.widgets_values, dict):
        return node.widgets_values
    return dict(reversed(list(zip(order, node.widgets_values or [], strict=False))))


def default_value(entry: InputDefinition) -> Any:
    """What a widget shows before anybody touches it."""
    if "default" in entry.options:
        return entry.options["default"]
    if entry.choices:
        return entry.choices[0]
    return _EMPTY.get(entry.type)


def primitive_value(node: UiNode) -> Any:
    """What a PrimitiveNode pushes into the widgets it is linked to; None when the file has no value."""
    return stored_by_name(node, ["value", CONTROL, FILTER]).get("value")


def sent_value(value: Any, entry: InputDefinition | None) -> Any:
    """A widget's value as the prompt has it: lists wrapped, dynamic prompts resolved."""
    if isinstance(value, list):
        kind = {"__type__": "CURVE"} if entry and entry.type == "CURVE" else {}
        return {**kind, "__value__": value}
    if isinstance(value, str) and entry and entry.options.get("dynamicPrompts"):
        return resolve_dynamic_prompt(value)
    return value
