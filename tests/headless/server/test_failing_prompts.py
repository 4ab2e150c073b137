"""What goes wrong with one prompt is told, and the next one runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from serving_prompts import Gate, Tab, node, serving

END = {"9": node("Say", text="still here")}


def _failed(tab: Tab) -> dict[str, Any]:
    return next(message["data"] for message in tab.messages if message["type"] == "execution_error")


def test_a_node_that_fails_is_named_and_the_next_prompt_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt = {"1": node("Plus", value=1), "2": node("Say", text="first", after=["1", 0]), "3": node("Break", how="error")}
            prompt_id = await served.queue(prompt, client_id=tab.sid)
            await tab.end(prompt_id)
            kinds = [kind for kind in tab.kinds() if kind not in ("progress_state", "logs")]
            assert kinds[-3:] == ["execution_error", "status", "executing"]
            told = _failed(tab)
            assert (told["node_id"], told["node_type"], told["exception_type"]) == ("3", "Break", "ValueError")
            assert told["exception_message"] == "ValueError: it broke"
            assert any("raise ValueError" in line for line in told["traceback"])
            assert (told["current_inputs"], told["current_outputs"]) == ({}, [])
            job = await served.get(f"/jobs/{prompt_id}")
            assert (job["status"], job["execution_error"]["node_id"]) == ("failed", "3")
            entry = (await served.get(f"/history/{prompt_id}"))[prompt_id]
            assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
            assert [kind for kind, _ in entry["status"]["messages"]] == ["execution_start", "execution_cached", "execution_error"]
            assert (await served.done(await served.queue(END)))["status"] == "completed"

    asyncio.run(scenario())


@pytest.mark.parametrize(("how", "kind", "word"), [("exit", "SystemExit", "could not be run"), ("circle", "WorkflowError", "circle")])
def test_what_is_no_nodes_fault_fails_the_job_and_not_the_server(tmp_path: Path, how: str, kind: str, word: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt_id = await served.queue({"1": node("Break", how=how)}, client_id=tab.sid)
            await tab.end(prompt_id)
            told = _failed(tab)
            assert told["exception_type"] == kind and word in told["exception_message"]
            assert (await served.get(f"/jobs/{prompt_id}"))["status"] == "failed"
            assert (await served.done(await served.queue(END)))["status"] == "completed"

    asyncio.run(scenario())


def test_a_persons_mistake_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "input/broken.png").write_bytes(b"no picture")

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            prompt = {"1": node("LoadImage", image="broken.png"), "2": node("PreviewImage", images=["1", 0])}
            error = (await served.done(await served.queue(prompt)))["execution_error"]
            assert (error["node_id"], error["exception_type"], error["traceback"]) == ("1", "PictureError", [])

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["interrupt", "interrupt this", "cancel", "cancel several"])
def test_the_running_prompt_stops_within_a_step(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt_id = await served.queue({"1": node("Steps", steps=10_000, seconds=0.01)}, client_id=tab.sid)
            waiting = await served.queue(END)
            await tab.kind("progress")
            if how == "interrupt":
                await served.post("/interrupt")
            elif how == "interrupt this":
                await served.post("/interrupt", {"prompt_id": waiting})
                assert (await served.get(f"/jobs/{prompt_id}"))["status"] == "in_progress"
                await served.post("/interrupt", {"prompt_id": prompt_id})
            elif how == "cancel":
                assert await served.post(f"/jobs/{prompt_id}/cancel") == {"cancelled": True}
            else:
                assert await served.post("/jobs/cancel", {"job_ids": [prompt_id, "unknown"]}) == {"cancelled": True}
            await tab.end(prompt_id)
            interrupted = next(message["data"] for message in tab.messages if message["type"] == "execution_interrupted")
            assert (interrupted["prompt_id"], interrupted["node_id"], interrupted["node_type"]) == (prompt_id, "1", "Steps")
            assert "execution_success" not in tab.kinds()
            job = await served.get(f"/jobs/{prompt_id}")
            assert job["status"] == "cancelled" and "execution_error" not in job
            assert (await served.done(waiting))["status"] == "completed"

    asyncio.run(scenario())


def test_an_interruption_does_not_reach_the_next_prompt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            await served.post("/interrupt")
            assert (await served.done(await served.queue(END)))["status"] == "completed"

    asyncio.run(scenario())


def test_closing_stops_the_running_prompt_and_leaves_the_rest(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with serving(tmp_path) as served:
            first, second = await served.queue({"1": node("Gate")}), await served.queue(END)
            await served.running(first)
            jobs = served.engine.jobs
        assert not Gate.opened.is_set()
        return [job.status for job in (jobs.get(first), jobs.get(second)) if job is not None]

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == ["cancelled", "pending"]
