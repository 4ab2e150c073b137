"""Pictures that the page sends: dropped photos, and the layers and masks of the mask editor."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.web_request import FileField
from PIL.PngImagePlugin import PngInfo

from ...core.file_names import written_whole
from .answers import Refused, answer
from .context import Context
from .file_answers import CHUNK
from .names import inside
from .view import folder_named, opened_picture, picture_path


@dataclass(frozen=True)
class Upload:
    """What a form brought: the file, and where it is to lie. `kind` is input, output or temp."""

    file: IO[bytes]
    name: str
    subfolder: str
    kind: str
    overwrite: bool
    original: str


def routes(context: Context) -> list[web.RouteDef]:
    """Forms of several parts, as large as the upload limit allows. One is stored at a time, so that two never take one name."""
    storing = asyncio.Lock()

    async def image(request: web.Request) -> web.StreamResponse:
        upload = await read_form(request)
        async with storing:
            return answer(await asyncio.to_thread(store, context, upload, upload.file))

    async def mask(request: web.Request) -> web.StreamResponse:
        upload = await read_form(request)
        content = await asyncio.to_thread(masked, context, upload)
        async with storing:
            return answer(await asyncio.to_thread(store, context, upload, content))

    return [web.post("/upload/image", image), web.post("/upload/mask", mask)]


async def read_form(request: web.Request) -> Upload:
    """The form; aiohttp keeps large files on disk meanwhile. Raises Refused when it is malformed or has no file."""
    if request.content_type != "multipart/form-data":
        raise Refused("An upload is a form of several parts.")
    try:
        fields = await request.post()
    except (ValueError, AssertionError, LookupError, RuntimeError) as error:
        # What aiohttp raises for the many ways in which a form can be broken.
        raise Refused("The form cannot be read.") from error
    file = fields.get("image")
    if not isinstance(file, FileField) or not file.filename:
        raise Refused("The form has no file called image.")

    def text(name: str) -> str:
        value = fields.get(name, "")
        return value if isinstance(value, str) else ""

    overwrite = text("overwrite").lower() in ("true", "1")
    return Upload(file.file, file.filename, text("subfolder"), text("type") or "input", overwrite, text("original_ref"))


def masked(context: Context, upload: Upload) -> IO[bytes]:
    """The original picture with the alpha of the uploaded one, as PNG with the original's texts."""
    with opened_picture(_original(context, upload.original)) as original, opened_picture(upload.file) as mask:
        if mask.size != original.size:
            raise Refused("The mask and its picture differ in size.")
        texts = PngInfo()
        for name, value in original.info.items():
            if isinstance(name, str) and isinstance(value, str):
                texts.add_text(name, value)
        result = original.convert("RGBA")
        result.putalpha(mask.convert("RGBA").getchannel("A"))
    content = io.BytesIO()
    result.save(content, "png", pnginfo=texts, compress_level=4)
    return content


def _original(context: Context, reference: str) -> Path:
    try:
        named = json.loads(reference)
    except (ValueError, RecursionError) as error:
        raise Refused("The reference to the original picture is not JSON.") from error
    if not isinstance(named, dict) or not all(isinstance(part, str) for part in named.values()):
        raise Refused("The reference to the original picture is an object with filename, subfolder and type.")
    return picture_path(context, named.get("filename", ""), named.get("subfolder", ""), named.get("type") or "output")


def store(context: Context, upload: Upload, content: IO[bytes]) -> dict[str, str]:
    """Keep the content, and say where. A name that is taken by other bytes gets ` (1)`; by the same bytes, it is used again."""
    base = folder_named(context, upload.kind)
    wanted = inside(base, upload.subfolder, upload.name)
    if wanted.is_dir():
        raise Refused("There is a folder of that name.", 409, "exists")
    path = wanted if upload.overwrite else next(path for path in _candidates(wanted) if _is_free_for(path, content))
    if upload.overwrite or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        content.seek(0)
        with written_whole(path) as temporary, temporary.open("wb") as target:
            shutil.copyfileobj(content, target)
    below = path.parent.relative_to(base.resolve()).as_posix()
    return {"name": path.name, "subfolder": "" if below == "." else below, "type": upload.kind}


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_stem(f"{path.stem} ({number})") for number in count(1))


def _is_free_for(path: Path, content: IO[bytes]) -> bool:
    """Whether nothing lies there, or this very content; links and folders are in the way, wherever they lead."""
    if not path.exists() and not path.is_symlink():
        return True
    if path.is_symlink() or not path.is_file() or path.stat().st_size != content.seek(0, io.SEEK_END):
        return False
    content.seek(0)
    with path.open("rb") as there:
        return all(part == content.read(len(part)) for part in iter(lambda: there.read(CHUNK), b""))
