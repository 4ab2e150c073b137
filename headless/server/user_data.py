"""Saved workflows and whatever else the page keeps: files of the user folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from ...core.file_names import written_whole
from .answers import Refused, answer
from .context import Context
from .file_answers import send_file
from .names import inside


def routes(context: Context) -> list[web.RouteDef]:
    """Names are one segment of the address, with %2F inside."""
    folder = context.user

    def named(request: web.Request, key: str = "file") -> Path:
        path = inside(folder, request.match_info[key])
        if path == folder.resolve():
            raise Refused("The name is empty.")
        return path

    async def listing(request: web.Request) -> web.StreamResponse:
        if not request.query.get("dir"):
            raise Refused("Which folder? Give it as dir.")
        below = inside(folder, request.query["dir"])
        found = await asyncio.to_thread(lambda: list(_files(below, _asked(request, "recurse"))))
        if _asked(request, "full_info"):
            return answer(await asyncio.to_thread(lambda: [_about(path, below) for path in found]))
        names = [path.relative_to(below).as_posix() for path in found]
        return answer([[name, *name.split("/")] for name in names] if _asked(request, "split") else names)

    async def read(request: web.Request) -> web.StreamResponse:
        return await send_file(request, named(request))

    async def write(request: web.Request) -> web.StreamResponse:
        path, content = named(request), await request.read()
        await asyncio.to_thread(_write, path, content, _may_overwrite(request))
        return await _written(request, path, folder)

    async def delete(request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(_delete, named(request))
        return web.Response(status=204)

    async def move(request: web.Request) -> web.StreamResponse:
        target = named(request, "target")
        await asyncio.to_thread(_move, named(request), target, _may_overwrite(request))
        return await _written(request, target, folder)

    return [
        web.get("/userdata", listing),
        web.get("/userdata/{file}", read),
        web.post("/userdata/{file}", write),
        web.delete("/userdata/{file}", delete),
        web.post("/userdata/{file}/move/{target}", move),
    ]


def _asked(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _may_overwrite(request: web.Request) -> bool:
    return request.query.get("overwrite", "").lower() != "false"


async def _written(request: web.Request, path: Path, folder: Path) -> web.Response:
    about = await asyncio.to_thread(_about, path, folder.resolve())
    return answer(about if _asked(request, "full_info") else about["path"])


def _about(path: Path, folder: Path) -> dict[str, Any]:
    """Sizes in bytes, times in seconds since 1970."""
    state = path.stat()
    return {
        "path": path.relative_to(folder).as_posix(),
        "size": state.st_size,
        "modified": state.st_mtime,
        "created": state.st_ctime,
    }


def _files(folder: Path, recurse: bool) -> Iterator[Path]:
    """Files by name; links are left out, since they may lead elsewhere."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(folders) if recurse else []
        paths = (Path(place, name) for name in sorted(names))
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _write(path: Path, content: bytes, overwrite: bool) -> None:
    _require_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def _delete(path: Path) -> None:
    if not path.is_file():
        raise Refused("There is no such file.", 404, "not_found")
    path.unlink()


def _move(source: Path, target: Path, overwrite: bool) -> None:
    if not source.is_file():
        raise Refused("There is no such file.", 404, "not_found")
    _require_free(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _require_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise Refused("There is a folder of that name.", 409, "exists")
    if path.exists() and not overwrite:
        raise Refused("There is a file of that name.", 409, "exists")
