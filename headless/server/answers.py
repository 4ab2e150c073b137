"""JSON in and out: answers a browser can parse, and bodies refused with a reason when they cannot be read."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web

# Saved workflows nest about twenty deep; what goes far beyond is an attack on the recursion of whoever reads it.
DEEPEST = 100


class Refused(web.HTTPException):
    """Raised anywhere in a route: the request ends with this status and reason, as JSON."""

    status_code = 400

    def __init__(self, message: str, status: int = 400, kind: str = "bad_request") -> None:
        self.status_code = status
        super().__init__(text=as_json(fault(message, kind)), content_type="application/json")


def fault(message: str, kind: str = "bad_request") -> dict[str, Any]:
    """The form in which the page expects what is wrong with a whole request."""
    return {"error": {"type": kind, "message": message, "details": "", "extra_info": {}}}


def answer(value: Any, status: int = 200) -> web.Response:
    """The value as JSON."""
    return web.Response(text=as_json(value), status=status, content_type="application/json")


def refusal(message: str, status: int = 400, kind: str = "bad_request") -> web.Response:
    """A whole-request fault as JSON."""
    return answer(fault(message, kind), status)


def as_json(value: Any) -> str:
    """JSON in ASCII. Numbers that JSON cannot write (NaN, infinities), which browsers refuse, become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return value


async def body_object(request: web.Request) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    body = await body_json(request)
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    return body


async def body_json(request: web.Request) -> Any:
    """The body as strict JSON in UTF-8, without NaN, infinities or lone surrogates in it, and nested at most DEEPEST deep."""
    try:
        text = (await request.read()).decode("utf-8")
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except ValueError as error:
        raise Refused(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Refused("The body is nested too deeply.") from error
    _require_plain(value)
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _require_plain(value: Any) -> None:
    """Refuse deep nesting, and texts that no file name or log can hold."""
    waiting = [(value, 1)]
    while waiting:
        entry, depth = waiting.pop()
        if isinstance(entry, str):
            _require_characters(entry)
        elif isinstance(entry, (dict, list)):
            if depth > DEEPEST:
                raise Refused("The body is nested too deeply.")
            if isinstance(entry, dict):
                for name in entry:
                    _require_characters(name)
            waiting.extend((inner, depth + 1) for inner in (entry.values() if isinstance(entry, dict) else entry))


def _require_characters(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refused("The body holds half a character.") from error
