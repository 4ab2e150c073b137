"""What a client asks to be run: the body of POST /prompt, read and checked but for the prompt itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from .answers import Refused
from .fields import part, texts

# Beyond it numbers that differ are equal, and the order of the queue with them.
_LARGEST = 2**53


@dataclass(frozen=True)
class Submission:
    """prompt: whatever was sent as one. number: place in the queue; without it the next one, or with `front` the first.

    targets: the output nodes wanted, all when None. client_id: the browser tab that is told how it gets on.
    """

    prompt: Any
    client_id: str | None = None
    extra_data: dict[str, Any] = field(default_factory=dict)
    front: bool = False
    number: float | None = None
    targets: list[str] | None = None
    prompt_id: str = field(default_factory=lambda: str(uuid4()))


def read_submission(body: dict[str, Any]) -> Submission:
    """Raises Refused for parts of a wrong type."""
    extra_data = part(body, "extra_data", dict) or {}
    part(extra_data, "extra_pnginfo", dict)
    return Submission(
        prompt=body.get("prompt"),
        client_id=part(body, "client_id", str),
        extra_data=extra_data,
        front=bool(body.get("front")),
        number=_number(body.get("number")),
        targets=texts(body, "partial_execution_targets"),
        prompt_id=_prompt_id(body.get("prompt_id")),
    )


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _LARGEST:
        raise Refused("number must be a number.")
    return value


def _prompt_id(value: Any) -> str:
    """A new id, or the one the client chose, which becomes part of addresses and messages."""
    if value is None:
        return str(uuid4())
    try:
        canonical = str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        canonical = None
    if canonical is None or value != canonical:
        raise Refused("prompt_id must be a UUID in lower case, such as 123e4567-e89b-12d3-a456-426614174000.", kind="invalid_prompt_id")
    return canonical
