"""What is sent over a websocket: JSON texts, and preview pictures in ComfyUI's binary frames."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .answers import as_json

_PREVIEW, _PREVIEW_WITH_METADATA, _JPEG = 1, 4, 1


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Text:
    """{"type": kind, "data": data}. key: of several unsent messages with one key only the newest matters."""

    kind: str
    data: dict[str, Any]
    key: str | None = None

    @cached_property
    def _json(self) -> str:
        return as_json({"type": self.kind, "data": self.data})

    def encoded(self, with_metadata: bool) -> str:
        """The text of the frame, made once for all who receive it."""
        return self._json


@dataclass(frozen=True)
class Preview:
    """A picture of a node at work, for the page to show on it. place: the node's ids and the prompt's."""

    jpeg: bytes
    place: dict[str, Any]

    @property
    def key(self) -> str:
        """A newer picture of the same node replaces one that was not sent yet."""
        return f"preview {self.place['node_id']}"

    def encoded(self, with_metadata: bool) -> bytes:
        """The frame: with the node's ids for a page that knows them, else the older form that goes to the node at work."""
        if not with_metadata:
            return struct.pack(">II", _PREVIEW, _JPEG) + self.jpeg
        metadata = json.dumps({**self.place, "image_type": "image/jpeg"}).encode()
        return struct.pack(">II", _PREVIEW_WITH_METADATA, len(metadata)) + metadata + self.jpeg


Message = Text | Preview


def status(remaining: int, sid: str | None = None) -> Text:
    """How many prompts wait or run; sid: the name under which this connection is known, in its first message."""
    data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": remaining}}}
    return Text("status", data if sid is None else {**data, "sid": sid})


def features(upload_limit: int) -> dict[str, Any]:
    """What the page may count on; upload_limit: bytes of one upload."""
    return {"supports_preview_metadata": True, "max_upload_size": upload_limit}


def plain(value: Any) -> Any:
    """A copy that JSON can hold: what nodes show may have anything in it, and is kept long after the node's tensors are gone."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value)
