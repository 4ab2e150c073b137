"""Changing numbers of a preset by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..errors import BadValueError
from .stages import Data

Model = TypeVar("Model", bound=Data)
FIXED = {"kind", "name", "description", "stages"}


def overridden(model: Model, changes: Mapping[str, object], where: str) -> Model:
    """A copy of the preset or stage with the named numbers replaced; child stages are reached by their names.

    A dictionary of weights is merged, everything else replaced. where: the path so far, for messages.
    """
    children: dict[str, Data] = dict(getattr(model, "stages", {}))
    values: dict[str, Any] = {name: getattr(model, name) for name in type(model).model_fields}
    numbers = [name for name in values if name not in FIXED]
    for key, change in changes.items():
        if key not in children and key not in numbers:
            known = ", ".join([*children, *numbers])
            raise BadValueError(f"There is nothing named {key!r} to override.", where=where, way_out=f"Known names: {known}.")
        place, target = (children, children[key]) if key in children else (values, values[key])
        place[key] = _changed(target, change, f"{where}, {key}")
    if children:
        values["stages"] = children
    try:
        return type(model).model_validate(values)
    except ValidationError as error:
        raise BadValueError(first_fault(error), where=where, way_out="Correct the override.") from None


def _changed(value: Any, change: object, where: str) -> Any:
    if isinstance(value, Data | dict) and not isinstance(change, Mapping):
        names = ", ".join(value if isinstance(value, dict) else [*getattr(value, "stages", {}), *(set(type(value).model_fields) - FIXED)])
        raise BadValueError(f"Found {json.dumps(change, default=str)}, expected an object.", where=where, way_out=f"Its names: {names}.")
    if isinstance(value, Data):
        return overridden(value, change, where)  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {**value, **change}  # type: ignore[dict-item]
    return change


def first_fault(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one sentence with the value that was found."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']} (found {fault['input']!r})." if place else f"{fault['msg']}."


def parse_overrides(text: str) -> dict[str, object]:
    """Overrides as typed by a person: a JSON object, or nothing. Raises BadValueError naming the place of the fault."""
    if not text.strip():
        return {}
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadValueError(
            f"Not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            where="overrides",
            way_out='Write an object such as {"noise": {"sigma": [0, 5]}}.',
        ) from None
    if not isinstance(changes, dict):
        raise BadValueError(f"Found {text.strip()[:40]!r}, expected a JSON object.", where="overrides", way_out="Begin with {.")
    return changes
