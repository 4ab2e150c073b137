"""What waits, runs and is done, and stopping it: /queue, /history, /interrupt and /free, for scripts and older pages."""

from __future__ import annotations

from aiohttp import web

from .answers import answer, body_object
from .context import Context
from .engine import Engine
from .fields import optional_body, part, texts, whole_number
from .job_items import history_entry, queue_entry
from .jobs import Job


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of this module, without /api."""
    return [*_queue_routes(context.engine), *_history_routes(context.engine), *_control_routes(context.engine)]


def _queue_routes(engine: Engine) -> list[web.RouteDef]:
    async def queue(request: web.Request) -> web.Response:
        running, pending = engine.jobs.running, engine.jobs.pending()
        entries = {"queue_running": [running] if running else [], "queue_pending": pending}
        return answer({name: [queue_entry(job) for job in jobs] for name, jobs in entries.items()})

    async def change_queue(request: web.Request) -> web.Response:
        body = await body_object(request)
        deleted = texts(body, "delete")
        if body.get("clear"):
            engine.drop_pending()
        if deleted:
            engine.drop_pending(frozenset(deleted))
        return answer({})

    return [web.get("/queue", queue), web.post("/queue", change_queue)]


def _history_routes(engine: Engine) -> list[web.RouteDef]:
    async def history(request: web.Request) -> web.Response:
        count, offset = whole_number(request.query, "max_items", 0), whole_number(request.query, "offset", -1)
        return answer({job.id: history_entry(job) for job in _cut(engine.jobs.finished(), count, offset)})

    async def history_of_one(request: web.Request) -> web.Response:
        job = engine.jobs.get(request.match_info["prompt_id"])
        is_done = job is not None and job.end_time is not None
        return answer({job.id: history_entry(job)} if job is not None and is_done else {})

    async def change_history(request: web.Request) -> web.Response:
        body = await body_object(request)
        deleted = texts(body, "delete")
        if body.get("clear"):
            engine.jobs.drop_finished()
        if deleted:
            engine.jobs.drop_finished(frozenset(deleted))
        return answer({})

    return [web.get("/history", history), web.get("/history/{prompt_id}", history_of_one), web.post("/history", change_history)]


def _cut(jobs: list[Job], count: int | None, offset: int | None) -> list[Job]:
    """So many from the offset on; without an offset the last ones."""
    if offset is None or offset < 0:
        offset = 0 if count is None else max(0, len(jobs) - count)
    return jobs[offset:] if count is None else jobs[offset : offset + count]


def _control_routes(engine: Engine) -> list[web.RouteDef]:
    async def interrupt(request: web.Request) -> web.Response:
        engine.jobs.interrupt(part(await optional_body(request), "prompt_id", str))
        return answer({})

    async def free(request: web.Request) -> web.Response:
        body = await optional_body(request)
        if body.get("unload_models") or body.get("free_memory"):
            engine.free()
        return answer({})

    return [web.post("/interrupt", interrupt), web.post("/free", free)]
