"""Pictures for the page: results, inputs and previews, whole or made smaller for a quick look."""

from __future__ import annotations

import asyncio
import io
import warnings
from pathlib import Path
from typing import IO

from aiohttp import web
from PIL import Image

from ...core.folders import split_annotation
from .answers import Refused
from .context import Context
from .file_answers import NO_CACHE, send_file
from .names import inside

FOLDERS = ("input", "output", "temp")
PREVIEW_FORMATS = ("webp", "jpeg")
DEFAULT_QUALITY = 90


def folder_named(context: Context, kind: str) -> Path:
    """The folder `input`, `output` or `temp`; Refused for any other."""
    if kind not in FOLDERS:
        raise Refused(f"There is no folder of that type; there are {', '.join(FOLDERS)}.")
    return context.folders.base(kind)


def picture_path(context: Context, filename: str, subfolder: str, kind: str) -> Path:
    """The file of a reference as messages give it. An annotated name such as `a.png [output]` says its folder itself."""
    plain, annotated = split_annotation(filename)
    if not plain:
        raise Refused("The name of the file is missing.")
    return inside(folder_named(context, annotated if plain != filename else kind), subfolder, plain)


def routes(context: Context) -> list[web.RouteDef]:
    """`rand` and whatever else the page adds to an address is ignored."""

    async def view(request: web.Request) -> web.StreamResponse:
        asked = request.query
        path = picture_path(context, asked.get("filename", ""), asked.get("subfolder", ""), asked.get("type") or "output")
        if "preview" in asked:
            return await _converted(request, path, *preview_format(asked["preview"], asked.get("channel", "rgba")))
        if asked.get("channel", "rgba") in ("rgb", "a"):
            return await _converted(request, path, "png", None)
        return await send_file(request, path)

    return [web.get("/view", view)]


def preview_format(asked: str, channel: str) -> tuple[str, int | None]:
    """Format and quality of `webp;90`; WebP where the asked one is unknown or cannot hold the alpha that was asked for."""
    name, _, quality = asked.partition(";")
    chosen = name if name in PREVIEW_FORMATS and channel == "rgb" else "webp"
    return chosen, min(max(int(quality), 1), 100) if quality.isascii() and quality.isdigit() and len(quality) < 4 else DEFAULT_QUALITY


async def _converted(request: web.Request, path: Path, kind: str, quality: int | None) -> web.StreamResponse:
    content = await asyncio.to_thread(convert, path, request.query.get("channel", "rgba"), kind, quality)
    return web.Response(body=content, content_type=f"image/{kind}", headers={"Cache-Control": NO_CACHE})


def convert(path: Path, channel: str, kind: str, quality: int | None) -> bytes:
    """The picture file in another format: all of it, its colours alone (`rgb`), or its alpha on black (`a`)."""
    target = io.BytesIO()
    with opened_picture(path) as picture:
        channels(picture, channel).save(target, kind, **({} if quality is None else {"quality": quality}))
    return target.getvalue()


def opened_picture(file: Path | IO[bytes]) -> Image.Image:
    """The first frame, read whole. Raises Refused when it is not there, no picture, damaged, or too large to decode safely."""
    if isinstance(file, Path) and not file.is_file():
        raise Refused("There is no such file.", 404, "not_found")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file)
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refused("The file is no picture that can be read.") from error
    return picture


def channels(picture: Image.Image, channel: str) -> Image.Image:
    """`rgb`, `a` (black with the picture's alpha) or everything, in a mode that every format here can hold."""
    if channel == "rgb":
        return picture.convert("RGB")
    everything = picture.convert("RGBA")
    if channel != "a":
        return everything
    black = Image.new("RGBA", picture.size)
    black.putalpha(everything.getchannel("A"))
    return black
