"""The jobs as the page's panels list, open and cancel them."""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from .answers import Refused, answer, body_object
from .context import Context
from .fields import texts, whole_number
from .job_items import job_detail, job_item
from .jobs import Job, Status

_STATUSES = get_args(Status)


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of this module, without /api."""
    engine = context.engine

    async def jobs(request: web.Request) -> web.Response:
        wanted = _statuses(request.query.get("status"))
        limit, offset = whole_number(request.query, "limit", 1), whole_number(request.query, "offset", 0) or 0
        found = [job for job in engine.jobs.all() if job.status in wanted]
        shown = found[offset:] if limit is None else found[offset : offset + limit]
        page = {"offset": offset, "limit": limit or len(shown), "total": len(found), "has_more": offset + len(shown) < len(found)}
        return answer({"jobs": [job_item(job) for job in shown], "pagination": page})

    async def job_of(request: web.Request) -> web.Response:
        job: Job | None = engine.jobs.get(request.match_info["job_id"])
        return answer({"error": "Job not found"}, 404) if job is None else answer(job_detail(job))

    async def cancel(request: web.Request) -> web.Response:
        return answer({"cancelled": engine.cancel({request.match_info["job_id"]})})

    async def cancel_several(request: web.Request) -> web.Response:
        return answer({"cancelled": engine.cancel(frozenset(texts(await body_object(request), "job_ids") or ()))})

    return [
        web.get("/jobs", jobs),
        web.post("/jobs/cancel", cancel_several),
        web.get("/jobs/{job_id}", job_of),
        web.post("/jobs/{job_id}/cancel", cancel),
    ]


def _statuses(text: str | None) -> tuple[str, ...]:
    """Those of a list with commas; all without one."""
    named = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    unknown = [name for name in named if name not in _STATUSES]
    if unknown:
        raise Refused(f"There is no status {unknown[0]}; choose from {', '.join(_STATUSES)}.")
    return named or _STATUSES
