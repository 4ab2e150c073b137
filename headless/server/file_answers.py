"""A file as an answer: streamed, revalidated by its ETag, and never as something that a browser would run."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import stat
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from .answers import Refused

CHUNK = 1024 * 1024
NO_CACHE = "no-cache"
UNKNOWN = "application/octet-stream"
_SHOWN = ("image/", "audio/", "video/")
_ALSO_SHOWN = ("text/plain", "text/markdown", "application/json")
# Different systems know different endings, and some call .js text/plain.
_TYPES = {
    ".avif": "image/avif",
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


def content_type(name: str) -> str:
    """Of a file by its ending, the same on every system."""
    suffix = Path(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or UNKNOWN


def harmless_type(name: str) -> str | None:
    """The type of pictures, sounds, films and plain texts; None for what could hold a script."""
    kind = content_type(name)
    shown = kind in _ALSO_SHOWN or (kind.startswith(_SHOWN) and not kind.endswith("xml"))
    return kind if shown else None


async def send_file(request: web.Request, path: Path, trusted: bool = False) -> web.StreamResponse:
    """The file's bytes. What is not `trusted`, since it lies in a folder that people and pages write to, is sent as a download
    unless it is harmless. Raises Refused 404 when there is no such file."""
    kind = content_type(path.name) if trusted else harmless_type(path.name)
    file, size, etag = await asyncio.to_thread(_opened, path)
    with file:
        headers = {"Content-Type": kind or UNKNOWN, "Cache-Control": NO_CACHE, "ETag": etag}
        if kind is None:
            headers["Content-Disposition"] = "attachment"
        if is_known(request, etag):
            return web.Response(status=304, headers=headers)
        return await _streamed(request, file, size, headers)


async def _streamed(request: web.Request, file: BinaryIO, size: int, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_length = size
    await response.prepare(request)
    # A file that grows while it is read must not overrun the length that was announced.
    left = 0 if request.method == "HEAD" else size
    while left and (chunk := await asyncio.to_thread(file.read, min(CHUNK, left))):
        left -= len(chunk)
        await response.write(chunk)
    await response.write_eof()
    return response


def is_known(request: web.Request, etag: str) -> bool:
    """Whether the browser has this very version already."""
    known = request.headers.get("If-None-Match", "")
    return etag in (part.strip().removeprefix("W/") for part in known.split(","))


def _opened(path: Path) -> tuple[BinaryIO, int, str]:
    """A regular file with its size and ETag: anything else, such as a pipe, might never end or begin."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileNotFoundError
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refused("There is no such file.", 404, "not_found") from error
    except OSError as error:
        raise Refused("The file cannot be read.", 403, "forbidden") from error
    state = os.fstat(file.fileno())
    return file, state.st_size, f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
