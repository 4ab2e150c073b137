"""The web page: the static files of the package comfyui-frontend-package, each compressed once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from aiohttp import web

from ...core.errors import FileAccessError, MissingPackageError
from .answers import Refused
from .context import Context
from .file_answers import NO_CACHE, content_type, is_known

PACKAGE, STATIC = "comfyui-frontend-package", "comfyui_frontend_package/static"
INDEX = "index.html"
OWN_STYLES = ("/user.css", "/api/userdata/user.css")
FOR_EVER = "public, max-age=31536000, immutable"
# `assets/main-D8pA5qkx.js`: the name changes with the content.
_HASHED = re.compile(r"assets/.+-[A-Za-z0-9_-]{8}\.\w+")
_COMPRESSED = (".css", ".eot", ".html", ".ico", ".js", ".json", ".svg", ".ttf", ".txt")


@dataclass(frozen=True)
class StaticFile:
    """One file as it is sent: `packed` is gzip, None where that gains nothing."""

    plain: Path
    kind: str
    etag: str
    caching: str
    packed: bytes | None


class StaticFiles:
    """The files of the page by name; each is read and compressed at its first request and kept (7 MB for a page load).

    Names are those found in the folder at the start, so that none can lead elsewhere. Source maps and links are
    left out.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names)
            if path.suffix != ".map" and path.is_file() and not path.is_symlink()
        }
        self._loading: dict[str, asyncio.Task[StaticFile]] = {}

    async def find(self, name: str) -> StaticFile:
        """The file of that name. Raises Refused 404."""
        path = self._paths.get(name)
        if path is None:
            raise Refused("There is no such page or route.", 404, "not_found")
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(asyncio.to_thread(self._load, name, path))
        # One browser going away must not cancel the work that others wait for.
        return await asyncio.shield(self._loading[name])

    def _load(self, name: str, path: Path) -> StaticFile:
        content = path.read_bytes()
        packed = None
        if path.suffix in _COMPRESSED:
            packed = gzip.compress(content, compresslevel=6, mtime=0)
        etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        return StaticFile(path, content_type(name), etag, FOR_EVER if _HASHED.fullmatch(name) else NO_CACHE, packed)


def front_end_folder(chosen: Path | None) -> Path:
    """The chosen folder, else that of the installed package. Raises FileAccessError or MissingPackageError."""
    if chosen is not None:
        if not (chosen / INDEX).is_file():
            raise FileAccessError(f"has no {INDEX}.", where=str(chosen), way_out="Give the folder of a built front end.")
        return chosen
    try:
        folder = Path(str(distribution(PACKAGE).locate_file(STATIC)))
    except PackageNotFoundError as error:
        raise MissingPackageError(
            f"the web page comes with the package {PACKAGE}, which is not installed.",
            way_out="pip install 'kintsugi-restoration[server]'",
        ) from error
    if not (folder / INDEX).is_file():
        raise MissingPackageError(
            f"the package {PACKAGE} holds no web page.", where=str(folder), way_out=f"pip install --force-reinstall {PACKAGE}"
        )
    return folder


def routes(context: Context) -> list[web.RouteDef]:
    """The page, and the end of every request that no other route takes. To be mounted last."""
    files = StaticFiles(front_end_folder(context.options.front_end))

    async def page(request: web.Request) -> web.StreamResponse:
        file = await files.find(request.match_info["name"] or INDEX)
        return await _send(request, file)

    async def unknown(_request: web.Request) -> web.StreamResponse:
        raise Refused("There is no such route.", 404, "not_found")

    async def no_style(_request: web.Request) -> web.StreamResponse:
        # The page always asks for a person's own style sheet, here and in the user folder. None is served from there: what a
        # page can write, no page may then apply.
        return web.Response(content_type="text/css")

    return [
        *(web.get(path, no_style) for path in OWN_STYLES),
        web.get("/{name:.*}", page),
        web.route("*", "/{name:.*}", unknown),
    ]


async def _send(request: web.Request, file: StaticFile) -> web.StreamResponse:
    headers = {"ETag": file.etag, "Cache-Control": file.caching, "Content-Type": file.kind, "Vary": "Accept-Encoding"}
    if is_known(request, file.etag):
        return web.Response(status=304, headers=headers)
    if file.packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=file.packed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=await asyncio.to_thread(file.plain.read_bytes), headers=headers)
