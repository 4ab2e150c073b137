"""The open websockets, and how messages from the worker's thread reach them without ever making it wait."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable
from typing import Any

from aiohttp import WSCloseCode, web

from .messages import Message
from .outgoing import Outgoing

log = logging.getLogger("kintsugi")

# A browser takes what it is sent within milliseconds; one that lies this far behind has stopped reading.
MOST_WAITING_BYTES = 32 * 1024 * 1024
# How many messages are handed out before the event loop looks after others.
MOST_AT_ONCE = 200
METADATA_FLAG = "supports_preview_metadata"


class Connection:
    """One open websocket of the browser tab `sid`, with what it is still to be sent. Belongs to the event loop."""

    def __init__(self, socket: web.WebSocketResponse, sid: str) -> None:
        self.sid = sid
        self._socket = socket
        self._flags: dict[str, Any] = {}
        self._outgoing = Outgoing(MOST_WAITING_BYTES)
        self._changed = asyncio.Event()
        self._gave_up = False

    def put(self, message: Message) -> None:
        """Queue a message. A tab that has stopped reading is disconnected: it comes back and asks for what it missed."""
        frame = message.encoded(bool(self._flags.get(METADATA_FLAG)))
        if not self._gave_up and not self._outgoing.put(frame, message.key):
            log.warning("A browser tab has stopped reading what it is sent, so its connection is closed.")
            self._outgoing.clear()
            self._gave_up = True
        self._changed.set()

    def hear(self, text: str) -> bool:
        """What the tab says: its feature flags, True then; all else, and what is no JSON, means nothing."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(said, dict) or said.get("type") != "feature_flags" or not isinstance(said.get("data"), dict):
            return False
        self._flags = said["data"]
        return True

    async def write(self) -> None:
        """Sends what is queued until the connection ends."""
        while not self._gave_up:
            await self._changed.wait()
            self._changed.clear()
            while self._outgoing:
                frame = self._outgoing.take()
                await (self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame))
                # Sending gives way only to a full buffer, and thousands of messages may wait.
                await asyncio.sleep(0)
        await self.close()

    async def close(self) -> None:
        """Tell the tab that this is over."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY)


class Hub:
    """All connections by the name of their tab, which may have several (a duplicated tab keeps its name)."""

    def __init__(self) -> None:
        self._connections: dict[str, list[Connection]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: list[tuple[Message, str | None]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """To be called on the event loop that serves the connections."""
        self._loop = asyncio.get_running_loop()

    def add(self, connection: Connection) -> None:
        """From now on it is told things."""
        self._connections.setdefault(connection.sid, []).append(connection)

    def remove(self, connection: Connection) -> None:
        """It is gone."""
        left = [each for each in self._connections.get(connection.sid, []) if each is not connection]
        if left:
            self._connections[connection.sid] = left
        else:
            self._connections.pop(connection.sid, None)

    def listens(self, sid: str | None) -> bool:
        """Whether a tab of that name is connected."""
        return sid in self._connections

    def post(self, message: Message, sid: str | None = None) -> None:
        """Send to the tab of that name, or to all. From any thread; what is posted on one thread arrives in order."""
        with self._lock:
            if self._loop is None:
                return
            if not self._outbox:
                self._loop.call_soon_threadsafe(self._deliver)
            self._outbox.append((message, sid))

    def _deliver(self) -> None:
        with self._lock:
            posted, self._outbox = self._outbox[:MOST_AT_ONCE], self._outbox[MOST_AT_ONCE:]
            if self._outbox and self._loop is not None:
                self._loop.call_soon(self._deliver)
        for message, sid in _newest(posted):
            for connection in self._receivers(sid):
                connection.put(message)

    def _receivers(self, sid: str | None) -> list[Connection]:
        if sid is not None:
            return self._connections.get(sid, [])
        return [connection for group in self._connections.values() for connection in group]

    async def close(self) -> None:
        """Ends every connection; what is posted from now on goes nowhere."""
        with self._lock:
            self._loop = None
        await asyncio.gather(*(connection.close() for connection in self._receivers(None)), return_exceptions=True)


def _newest(posted: list[tuple[Message, str | None]]) -> Iterable[tuple[Message, str | None]]:
    """Without those that a later one replaces: a run of quick nodes posts far more of them than anyone can see."""
    last = {(message.key, sid): index for index, (message, sid) in enumerate(posted) if message.key is not None}
    return (each for index, each in enumerate(posted) if each[0].key is None or last[each[0].key, each[1]] == index)
