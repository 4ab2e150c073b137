"""What nodes there are: the answer that the page builds its menus and widgets from."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ...core.graph.registry import Registry, describe
from ...nodes.catalogue import NODE_CLASS_MAPPINGS
from .answers import answer
from .context import Context
from .pack import PYTHON_MODULE


def routes(context: Context) -> list[web.RouteDef]:
    """All nodes, or one. Whoever asks while the folders are being listed gets the same answer."""
    registry, engine = context.registry, context.engine
    asked: list[asyncio.Future[dict[str, Any]]] = []

    async def every_node(_request: web.Request) -> web.StreamResponse:
        if not asked:
            asked.append(asyncio.ensure_future(engine.aside(lambda: node_info(registry))))
            asked[0].add_done_callback(lambda _done: asked.clear())
        return answer(await asyncio.shield(asked[0]))

    async def one_node(request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        return answer(await engine.aside(lambda: one_node_info(registry, name)) if name in registry else {})

    return [web.get("/object_info", every_node), web.get("/object_info/{id}", one_node)]


def node_info(registry: Registry) -> dict[str, dict[str, Any]]:
    """Every node class by id, choices of files and weights as they are now."""
    return {name: _placed(name, entry) for name, entry in registry.object_info().items()}


def one_node_info(registry: Registry, name: str) -> dict[str, dict[str, Any]]:
    """That node class alone."""
    registry.refresh()
    return {name: _placed(name, describe(registry.definition(name), registry.display_name(name)))}


def _placed(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Ours belong to the pack, whose help pages the page then finds."""
    return {**entry, "python_module": PYTHON_MODULE} if name in NODE_CLASS_MAPPINGS else entry
