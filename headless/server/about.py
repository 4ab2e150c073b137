"""What the server is and can: the machine, the one user, what the page may switch on, and the log."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
from aiohttp import web

from ... import __version__
from ...core.runtime import current_host
from .answers import Refused, answer, body_object
from .context import Context
from .hub import Hub
from .messages import Text
from .messages import features as feature_flags
from .view import folder_named

LOG_LINES = 300
PANEL = {"cols": 120, "rows": 50}
# The page takes this as a wish not to call its maker's services.
ARGUMENTS = ["kintsugi", "serve", "--disable-api-nodes"]


class LogLines(logging.Handler):
    """The last lines that were logged, for the page's console panel; tabs that look at it are told of new ones."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[dict[str, str]] = deque(maxlen=LOG_LINES)
        self.readers: set[str] = set()
        self._hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        """Without tracebacks, which belong to whoever runs the server."""
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        line = {"t": written, "m": f"{record.levelname}: {record.getMessage()}\n"}
        self.lines.append(line)
        for sid in tuple(self.readers):
            self._hub.post(Text("logs", {"entries": [line], "size": PANEL}), sid)

    def subscribe(self, sid: str, enabled: bool) -> None:
        """Tabs that are gone are forgotten."""
        self.readers = {reader for reader in self.readers if self._hub.listens(reader)} - {sid}
        if enabled and self._hub.listens(sid):
            self.readers.add(sid)


LOG = web.AppKey("log", LogLines)


async def keep_log(app: web.Application) -> AsyncIterator[None]:
    """As long as the server runs, what is logged goes to the page's panel and, whole, to whoever runs the server."""
    logger, terminal = logging.getLogger("kintsugi"), logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    before = logger.level
    logger.setLevel(logging.INFO)
    for handler in (app[LOG], terminal):
        logger.addHandler(handler)
    yield
    for handler in (app[LOG], terminal):
        logger.removeHandler(handler)
    logger.setLevel(before)


def machine(device: torch.device) -> dict[str, Any]:
    """The answer of /system_stats: memory in bytes, of this machine and of the device that computes."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (memory.available, memory.total)
    kept = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
    used = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return {
        "system": {
            "os": sys.platform,
            "ram_total": memory.total,
            "ram_free": memory.available,
            "comfyui_version": f"Kintsugi {__version__}",
            "python_version": sys.version,
            "pytorch_version": torch.__version__,
            "embedded_python": False,
            "argv": ARGUMENTS,
        },
        "devices": [
            {
                "name": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
                "type": device.type,
                "index": device.index,
                "vram_total": total,
                "vram_free": free,
                "torch_vram_total": kept,
                "torch_vram_free": kept - used,
            }
        ],
    }


def newest_first(folder: Path) -> list[str]:
    """Names of the files of a folder, without hidden ones and links."""
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")]
    return [entry.name for entry in sorted(files, key=lambda entry: -entry.stat().st_mtime)]


def routes(context: Context) -> list[web.RouteDef]:
    """Small answers that the page asks for while it loads."""

    async def system_stats(_request: web.Request) -> web.StreamResponse:
        return answer(await context.engine.aside(lambda: machine(current_host().device)))

    async def features(_request: web.Request) -> web.StreamResponse:
        return answer(feature_flags(context.options.upload_limit))

    async def users(_request: web.Request) -> web.StreamResponse:
        return answer({"storage": "server", "migrated": True})

    async def newest_files(request: web.Request) -> web.StreamResponse:
        folder = folder_named(context, request.match_info["kind"])
        return answer(await asyncio.to_thread(newest_first, folder))

    async def log_text(request: web.Request) -> web.StreamResponse:
        return answer("".join(f"{line['t']} - {line['m']}" for line in request.app[LOG].lines))

    async def log_lines(request: web.Request) -> web.StreamResponse:
        return answer({"entries": list(request.app[LOG].lines), "size": PANEL})

    async def subscribe(request: web.Request) -> web.StreamResponse:
        body = await body_object(request)
        if not isinstance(body.get("clientId"), str) or not isinstance(body.get("enabled"), bool):
            raise Refused("Which tab, and on or off? Give clientId and enabled.")
        request.app[LOG].subscribe(body["clientId"], body["enabled"])
        return web.Response()

    return [
        web.get("/system_stats", system_stats),
        web.get("/features", features),
        web.get("/users", users),
        web.get("/internal/files/{kind}", newest_files),
        web.get("/internal/logs", log_text),
        web.get("/internal/logs/raw", log_lines),
        web.patch("/internal/logs/subscribe", subscribe),
    ]
