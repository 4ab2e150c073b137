"""Settings of the page, kept in one file of the user folder."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from ...core.file_names import written_whole
from .answers import answer, as_json, body_json, body_object
from .context import Context

log = logging.getLogger("kintsugi")

FILE = "comfy.settings.json"
# The canvas, not the templates dialog, is what one sees first, and the page asks nobody for news.
DEFAULTS = {"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}


class Settings:
    """The settings of one user folder. Changes come one after another, and each is written whole."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._changing = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """What was saved, over the defaults."""
        return await asyncio.to_thread(self._read)

    async def change(self, changes: Mapping[str, Any]) -> None:
        """Keep these values beside the others."""
        async with self._changing:
            await asyncio.to_thread(self._write, changes)

    def _read(self) -> dict[str, Any]:
        try:
            saved = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return dict(DEFAULTS)
        except ValueError as error:
            log.warning("%s is not JSON (%s): settings begin anew.", self._file, error)
            return dict(DEFAULTS)
        return {**DEFAULTS, **saved} if isinstance(saved, dict) else dict(DEFAULTS)

    def _write(self, changes: Mapping[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self._file) as temporary:
            temporary.write_text(as_json({**self._read(), **changes}), encoding="utf-8")


def routes(context: Context) -> list[web.RouteDef]:
    """Reading and changing all settings or one."""
    settings = Settings(context.user)

    async def read_all(_request: web.Request) -> web.StreamResponse:
        return answer(await settings.read())

    async def read_one(request: web.Request) -> web.StreamResponse:
        return answer((await settings.read()).get(request.match_info["id"]))

    async def change_many(request: web.Request) -> web.StreamResponse:
        await settings.change(await body_object(request))
        return web.Response()

    async def change_one(request: web.Request) -> web.StreamResponse:
        await settings.change({request.match_info["id"]: await body_json(request)})
        return web.Response()

    return [
        web.get("/settings", read_all),
        web.get("/settings/{id}", read_one),
        web.post("/settings", change_many),
        web.post("/settings/{id}", change_one),
    ]
