"""Parts of what clients send, of the right type or refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .answers import Refused, body_object

_KINDS: dict[type, str] = {list: "a list", dict: "an object", str: "a text"}
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


def part(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """body[name]; None when it is absent or null. kind: list, dict or str."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise Refused(f"{name} must be {_KINDS[kind]}.")
    return value


def texts(body: Mapping[str, Any], name: str) -> list[str] | None:
    """A list of ids; None when it is absent."""
    found: list[str] | None = part(body, name, list)
    if found is not None and not all(isinstance(entry, str) for entry in found):
        raise Refused(f"{name} must be a list of ids.")
    return found


def whole_number(query: Mapping[str, str], name: str, smallest: int) -> int | None:
    """A number of the address; None when it is not there."""
    text = query.get(name)
    if text is None:
        return None
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < smallest:
        raise Refused(f"{name} must be a whole number and at least {smallest}.")
    return int(text)


async def optional_body(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; empty when there is none."""
    return await body_object(request) if request.can_read_body else {}
