"""POST /prompt queues a prompt; GET /prompt says how many are left."""

from __future__ import annotations

from aiohttp import web

from ...core.graph.faults import Validation
from .answers import answer, body_object
from .context import Context
from .submission import read_submission


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of this module, without /api."""
    engine = context.engine

    async def remaining(request: web.Request) -> web.Response:
        return answer({"exec_info": {"queue_remaining": engine.jobs.remaining}})

    async def submit(request: web.Request) -> web.Response:
        accepted = await engine.submit(read_submission(await body_object(request)))
        if isinstance(accepted, Validation):
            return answer({"error": accepted.error, "node_errors": accepted.node_errors}, 400)
        return answer({"prompt_id": accepted.id, "number": accepted.number, "node_errors": accepted.node_errors})

    return [web.get("/prompt", remaining), web.post("/prompt", submit)]
