"""A job as the page and scripts read it: entry of the queue, of the history, of the list of jobs, or in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .jobs import Job

# The kinds of output that can stand for a job in a list; text only where there is nothing else.
_MEDIA = ("images", "video", "gifs", "audio", "3d")
_TEXT = "text"
_CREDENTIALS = ("auth_token_comfy_org", "api_key_comfy_org")


def queue_entry(job: Job) -> list[Any]:
    """[number, id, prompt, extra data, output ids]; credentials are left out."""
    return [job.number, job.id, job.prompt, _shown_extra(job), job.outputs]


def _shown_extra(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.extra_data.items() if name not in _CREDENTIALS}


def history_entry(job: Job) -> dict[str, Any]:
    """A finished job, as /history tells it."""
    return {"prompt": queue_entry(job), "outputs": job.ui, "meta": job.meta, "status": _execution_status(job)}


def _execution_status(job: Job) -> dict[str, Any]:
    completed = job.status == "completed"
    return {"status_str": "success" if completed else "error", "completed": completed, "messages": job.messages}


def job_item(job: Job) -> dict[str, Any]:
    """A job in a list. The page refuses a whole list for one entry of a wrong type, so what is unknown is left out."""
    item: dict[str, Any] = {
        "id": job.id,
        "status": job.status,
        "create_time": job.create_time,
        "execution_start_time": job.start_time,
        "execution_end_time": job.end_time,
        "outputs_count": sum(1 for _ in _outputs(job)),
        "previewable_outputs_count": sum(1 for _, kind, _ in _outputs(job) if kind in _MEDIA),
        "preview_output": _preview_output(job),
        "execution_error": job.error,
        "workflow_id": _workflow_id(job),
        "priority": job.number,
    }
    return {name: value for name, value in item.items() if value is not None}


def job_detail(job: Job) -> dict[str, Any]:
    """A job in full: what it showed, and the workflow to open again."""
    workflow = {"prompt": job.prompt, "extra_data": _shown_extra(job)}
    status = {"execution_status": _execution_status(job)} if job.end_time is not None else {}
    return job_item(job) | {"outputs": job.ui, "execution_meta": job.meta, "workflow": workflow} | status


def _outputs(job: Job) -> Iterator[tuple[str, str, Any]]:
    """(node id, kind, item) of everything that was shown and is a file or a text."""
    for node_id, shown in list(job.ui.items()):
        for kind, items in shown.items():
            if kind in _MEDIA:
                yield from ((node_id, kind, item) for item in items if isinstance(item, dict) and isinstance(item.get("filename"), str))
            elif kind == _TEXT:
                yield from ((node_id, kind, item) for item in items)


def _preview_output(job: Job) -> dict[str, Any] | None:
    """What stands for the job: a file in the output folder, else any file, else a text."""
    ranked = sorted(_outputs(job), key=_rank)
    if not ranked:
        return None
    node_id, kind, item = ranked[0]
    if kind == _TEXT:
        return {"nodeId": node_id, "mediaType": kind, "content": str(item)}
    place = {"filename": item["filename"], "subfolder": str(item.get("subfolder", "")), "type": str(item.get("type", "output"))}
    return {**place, "nodeId": node_id, "mediaType": kind}


def _rank(output: tuple[str, str, Any]) -> int:
    _, kind, item = output
    if kind == _TEXT:
        return 2
    return 0 if item.get("type") == "output" else 1


def _workflow_id(job: Job) -> str | None:
    info = job.extra_data.get("extra_pnginfo")
    workflow = info.get("workflow") if isinstance(info, dict) else None
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else None
