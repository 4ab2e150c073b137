"""What the models folders hold, for the page's lists. Of a file only its header is ever read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from ...core.folders import Folders
from ...core.weights.locations import KINDS, PICKLE_SUFFIXES, SAFETENSORS_SUFFIXES, files_below
from .answers import Refused, answer
from .context import Context

LONGEST_HEADER = 8 * 1024 * 1024
_LENGTH_BYTES = 8


def routes(context: Context) -> list[web.RouteDef]:
    """Kinds of models, their files, and what a file says of itself. Names are compared with what is there, never opened as paths."""
    folders = context.folders

    async def kinds(_request: web.Request) -> web.StreamResponse:
        return answer(_kinds(folders))

    async def names(request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(lambda: list(_files(folders, _kind(folders, request))))
        return answer(sorted({path.relative_to(folder).as_posix() for _, folder, path in found}))

    async def kinds_with_folders(_request: web.Request) -> web.StreamResponse:
        return answer([{"name": kind, "folders": [str(folder) for folder in folders.of_models(kind)]} for kind in _kinds(folders)])

    async def details(request: web.Request) -> web.StreamResponse:
        kind = _kind(folders, request)
        return answer(await asyncio.to_thread(lambda: [_details(*each) for each in _files(folders, kind)]))

    async def metadata(request: web.Request) -> web.StreamResponse:
        kind, name = _kind(folders, request), request.query.get("filename", "")
        return answer(await asyncio.to_thread(_metadata, folders, kind, name))

    async def embeddings(_request: web.Request) -> web.StreamResponse:
        return answer([])

    async def folder_paths(_request: web.Request) -> web.StreamResponse:
        return answer({kind: [str(folder) for folder in folders.of_models(kind)] for kind in _kinds(folders)})

    return [
        web.get("/models", kinds),
        web.get("/models/{kind}", names),
        web.get("/experiment/models", kinds_with_folders),
        web.get("/experiment/models/{kind}", details),
        web.get("/view_metadata/{kind}", metadata),
        web.get("/embeddings", embeddings),
        web.get("/internal/folder_paths", folder_paths),
    ]


def _kinds(folders: Folders) -> list[str]:
    return list(dict.fromkeys((*KINDS, *folders.model_paths)))


def _kind(folders: Folders, request: web.Request) -> str:
    kind = request.match_info["kind"]
    if kind not in _kinds(folders):
        raise Refused("There is no such kind of model.", 404, "not_found")
    return kind


def _files(folders: Folders, kind: str) -> Iterator[tuple[int, Path, Path]]:
    """Number of the folder, the folder, and the file in it."""
    for index, folder in enumerate(folders.of_models(kind)):
        for path in files_below(folder, (*SAFETENSORS_SUFFIXES, *PICKLE_SUFFIXES)):
            if path.is_file():
                yield index, folder, path


def _details(index: int, folder: Path, path: Path) -> dict[str, Any]:
    state = path.stat()
    name = path.relative_to(folder).as_posix()
    return {"name": name, "pathIndex": index, "modified": state.st_mtime, "created": state.st_ctime, "size": state.st_size}


def _metadata(folders: Folders, kind: str, name: str) -> dict[str, Any]:
    found = (path for _, folder, path in _files(folders, kind) if path.relative_to(folder).as_posix() == name)
    path = next(found, None)
    header = read_header(path) if path is not None and path.suffix.lower() in SAFETENSORS_SUFFIXES else None
    said = header.get("__metadata__") if header else None
    if not isinstance(said, dict):
        raise Refused("There is no such file, or it says nothing of itself.", 404, "not_found")
    return said


def read_header(path: Path) -> dict[str, Any] | None:
    """The JSON at the head of a safetensors file; None when it is not one."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > LONGEST_HEADER:
            return None
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) else None
