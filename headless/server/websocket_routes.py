"""GET /ws: the connection of a browser tab, over which it is told how its prompts get on."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from aiohttp import WSMsgType, web

from .context import Context
from .hub import Connection
from .messages import Text, features

# What tabs say is a few hundred bytes.
LARGEST_MESSAGE = 64 * 1024
HEARTBEAT = 30.0


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of this module, without /api."""
    engine = context.engine

    async def connect(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=LARGEST_MESSAGE, compress=False)
        await socket.prepare(request)
        connection = Connection(socket, request.query.get("clientId") or uuid4().hex)
        for message in engine.greeting(connection.sid):
            connection.put(message)
        engine.hub.add(connection)
        writing = asyncio.create_task(connection.write())
        try:
            async for received in socket:
                if received.type is WSMsgType.TEXT and connection.hear(received.data):
                    connection.put(Text("feature_flags", features(context.options.upload_limit)))
        finally:
            engine.hub.remove(connection)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        return socket

    return [web.get("/ws", connect)]
