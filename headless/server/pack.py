"""What the pack ships for the page: its scripts, help pages, translations and the workflows of the templates dialog."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from ..run import WORKFLOWS
from .answers import Refused, answer
from .context import Context
from .file_answers import send_file
from .names import inside

PACK = "Kintsugi"
PYTHON_MODULE = f"custom_nodes.{PACK}"
WEB, LOCALES = (Path(__file__).parents[2] / name for name in ("web", "locales"))
# Scripts for the page on this server alone: in ComfyUI they would meddle with what is ComfyUI's.
SERVER_PACK, SERVER_SCRIPTS = "KintsugiServer", Path(__file__).parent / "page_scripts"
TEMPLATE_FILES = (".json", ".jpg")


def routes(_context: Context) -> list[web.RouteDef]:
    """Nothing here depends on the context: these are files of the package."""
    return [
        web.get("/extensions", extensions),
        web.get(f"/extensions/{PACK}/{{name:.+}}", extension_file),
        web.get(f"/extensions/{SERVER_PACK}/{{name:.+}}", server_script),
        web.get("/docs/{name:.+}", core_help),
        web.get("/i18n", i18n),
        web.get("/workflow_templates", templates),
        web.get(f"/workflow_templates/{PACK}/{{name}}", template_file),
        web.get("/templates/{name:index.*\\.json}", core_templates),
        web.get("/global_subgraphs", nothing_yet),
        web.get("/node_replacements", nothing_yet),
    ]


async def extensions(_request: web.Request) -> web.StreamResponse:
    """Addresses of the scripts that the page imports."""
    return answer(await asyncio.to_thread(lambda: [*_scripts(PACK, WEB), *_scripts(SERVER_PACK, SERVER_SCRIPTS)]))


def _scripts(pack: str, folder: Path) -> list[str]:
    return [f"/extensions/{pack}/{path.relative_to(folder).as_posix()}" for path in sorted(folder.rglob("*.js"))]


async def extension_file(request: web.Request) -> web.StreamResponse:
    """A script, style sheet, help page or picture of the pack."""
    return await send_file(request, inside(WEB, request.match_info["name"]), trusted=True)


async def server_script(request: web.Request) -> web.StreamResponse:
    """A script of this server."""
    return await send_file(request, inside(SERVER_SCRIPTS, request.match_info["name"]), trusted=True)


async def core_help(_request: web.Request) -> web.StreamResponse:
    """Stock nodes have no help pages here; the page then shows their descriptions."""
    raise Refused("There is no such help page.", 404, "not_found")


async def i18n(_request: web.Request) -> web.StreamResponse:
    """Every translation by language."""
    return answer(await asyncio.to_thread(translations))


@cache
def translations() -> dict[str, dict[str, Any]]:
    """{language: {nodeDefs, commands, settings and the entries of main}}, from `locales/<language>/*.json`."""
    merged: dict[str, dict[str, Any]] = {}
    for file in sorted(LOCALES.glob("*/*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        merged.setdefault(file.parent.name, {}).update(content if file.stem == "main" else {file.stem: content})
    return merged


async def templates(_request: web.Request) -> web.StreamResponse:
    """The workflows by pack; ours is the only one."""
    names = await asyncio.to_thread(lambda: sorted(path.stem for path in WORKFLOWS.glob("*.json")))
    return answer({PACK: names})


async def template_file(request: web.Request) -> web.StreamResponse:
    """A workflow or its thumbnail."""
    path = inside(WORKFLOWS, request.match_info["name"])
    if path.suffix not in TEMPLATE_FILES:
        raise Refused("There is no such template.", 404, "not_found")
    return await send_file(request, path, trusted=True)


async def core_templates(_request: web.Request) -> web.StreamResponse:
    """ComfyUI's own templates are not part of this server."""
    return answer([])


async def nothing_yet(_request: web.Request) -> web.StreamResponse:
    """Blueprints and renamed nodes, of which the pack has none."""
    return answer({})
