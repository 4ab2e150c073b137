"""Queueing over HTTP: order, ids, faults, what waits, what was run, and the lists of jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from serving_prompts import WORKFLOW, Gate, Served, node, serving

SAY = {"1": node("Say", text="x")}


async def _gated(served: Served) -> str:
    """A prompt that keeps the worker busy."""
    gate = await served.queue({"1": node("Gate")})
    await served.running(gate)
    return gate


def test_two_hundred_prompts_are_all_answered_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompts = [{"1": node("Say", text=str(index))} for index in range(200)]
            posted = [await served.queue(prompt, client_id=tab.sid) for prompt in prompts]
            assert len(set(posted)) == 200
            await tab.end(posted[-1])
            told = [message["data"] for message in tab.messages if message["type"] == "executed"]
            assert [data["prompt_id"] for data in told] == posted
            assert [data["output"]["text"] for data in told] == [[str(index)] for index in range(200)]
            assert list(await served.get("/history")) == posted
            assert await served.get("/prompt") == {"exec_info": {"queue_remaining": 0}}
            numbers = [entry["prompt"][0] for entry in (await served.get("/history")).values()]
            assert numbers == sorted(numbers)

    asyncio.run(scenario())


def test_prompts_posted_at_once_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            posted = await asyncio.gather(*(served.queue({"1": node("Say", text=str(index))}) for index in range(50)))
            assert {(await served.done(prompt_id))["status"] for prompt_id in posted} == {"completed"}

    asyncio.run(scenario())


def test_front_and_number_decide_who_is_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            gate = await _gated(served)
            late, usual = await served.queue(SAY, number=50.5), await served.queue(SAY)
            front, first = await served.queue(SAY, front=True), await served.queue(SAY, number=-100)
            queue = await served.get("/queue")
            assert [entry[1] for entry in queue["queue_running"]] == [gate]
            assert [entry[1] for entry in queue["queue_pending"]] == [first, front, usual, late]
            number, prompt_id, prompt, extra_data, outputs = queue["queue_pending"][-1]
            assert (number, prompt_id, prompt, outputs) == (50.5, late, SAY, ["1"])
            assert isinstance(extra_data["create_time"], int)
            Gate.opened.set()
            await served.done(late)
            assert list(await served.get("/history")) == [gate, first, front, usual, late]

    asyncio.run(scenario())


def test_a_client_may_choose_a_canonical_id_that_is_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            chosen = str(uuid4())
            assert await served.queue(SAY, prompt_id=chosen) == chosen
            for bad in (chosen.upper(), chosen.replace("-", ""), f"{{{chosen}}}", "x", "", 7, ["a"], f"../{chosen}", f"{chosen}\n"):
                answer = await served.post("/prompt", {"prompt": SAY, "prompt_id": bad}, 400)
                assert answer["error"]["type"] == "invalid_prompt_id", bad
            answer = await served.post("/prompt", {"prompt": SAY, "prompt_id": chosen}, 400)
            assert answer["error"]["type"] == "invalid_prompt_id"

    asyncio.run(scenario())


BAD_PROMPTS: list[tuple[Any, str]] = [
    (None, "no_prompt"),
    ({}, "no_prompt"),
    ([], "no_prompt"),
    ("text", "no_prompt"),
    ({"1": "text"}, "invalid_prompt"),
    ({"1": {"class_type": "Say"}}, "invalid_prompt"),
    ({"1": node("Plus", value=1)}, "prompt_no_outputs"),
    ({"1": node("Nonsense")}, "missing_node_type"),
    ({"1": node("Say")}, "prompt_outputs_failed_validation"),
    ({"1": node("Say", text="x", after=["1", 0])}, "prompt_outputs_failed_validation"),
]


def test_faulty_prompts_are_refused_with_their_faults(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            for prompt, kind in BAD_PROMPTS:
                answer = await served.post("/prompt", {"prompt": prompt}, 400)
                assert set(answer) == {"error", "node_errors"}
                assert set(answer["error"]) == {"type", "message", "details", "extra_info"}
                assert answer["error"]["type"] == kind, prompt
            errors = (await served.post("/prompt", {"prompt": {"5": node("Say")}}, 400))["node_errors"]
            assert errors["5"]["class_type"] == "Say" and errors["5"]["dependent_outputs"] == ["5"]
            assert errors["5"]["errors"][0]["type"] == "required_input_missing"
            assert (await served.get("/history"), (await served.get("/prompt"))["exec_info"]) == ({}, {"queue_remaining": 0})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "part",
    [
        {"client_id": 5},
        {"extra_data": []},
        {"extra_data": {"extra_pnginfo": "x"}},
        {"number": "first"},
        {"number": True},
        {"number": 10**400},
        {"partial_execution_targets": "1"},
        {"partial_execution_targets": [1]},
    ],
)
def test_parts_of_a_wrong_type_are_refused(tmp_path: Path, part: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            answer = await served.post("/prompt", {"prompt": SAY, **part}, 400)
            assert next(iter(part)) in answer["error"]["message"] or "extra_pnginfo" in answer["error"]["message"]

    asyncio.run(scenario())


def test_good_outputs_run_beside_bad_ones_and_targets_choose(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            prompt = {"1": node("Say", text="good"), "2": node("Say"), "3": node("Say", text="other")}
            answer = await served.post("/prompt", {"prompt": prompt})
            assert set(answer) == {"prompt_id", "number", "node_errors"} and set(answer["node_errors"]) == {"2"}
            assert set((await served.done(answer["prompt_id"]))["outputs"]) == {"1", "3"}
            answer = await served.post("/prompt", {"prompt": prompt, "partial_execution_targets": ["3"]})
            assert answer["node_errors"] == {}
            assert set((await served.done(answer["prompt_id"]))["outputs"]) == {"3"}

    asyncio.run(scenario())


def test_waiting_prompts_can_be_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            gate = await _gated(served)
            first, second, third, fourth, fifth = [await served.queue(SAY) for _ in range(5)]
            await served.post("/queue", {"delete": [first, "unknown"]})
            assert await served.post(f"/jobs/{second}/cancel") == {"cancelled": True}
            assert await served.post(f"/jobs/{second}/cancel") == {"cancelled": False}
            assert await served.post("/jobs/cancel", {"job_ids": [third]}) == {"cancelled": True}
            assert [entry[1] for entry in (await served.get("/queue"))["queue_pending"]] == [fourth, fifth]
            await served.post("/queue", {"clear": True})
            await tab.until(lambda message: message["data"].get("status") == {"exec_info": {"queue_remaining": 1}})
            Gate.opened.set()
            await served.done(gate)
            assert list(await served.get("/history")) == [gate]
            await served.post("/queue", {"delete": [5]}, 400)

    asyncio.run(scenario())


def test_history_is_cut_and_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            posted = [await served.queue({"1": node("Say", text=str(index))}) for index in range(5)]
            await served.done(posted[-1])
            assert list(await served.get("/history?max_items=2")) == posted[3:]
            assert list(await served.get("/history?max_items=2&offset=1")) == posted[1:3]
            assert list(await served.get("/history?offset=4")) == posted[4:]
            assert list(await served.get(f"/history/{posted[0]}")) == [posted[0]]
            assert await served.get("/history/unknown") == {}
            for bad in ("max_items=x", "max_items=-1", f"max_items={'9' * 5000}", "offset=1e3", "offset=%F0%9D%9F%99"):
                await served.get(f"/history?{bad}", 400)
            await served.post("/history", {"delete": [posted[1], "unknown"]})
            assert list(await served.get("/history")) == [posted[0], *posted[2:]]
            await served.post("/history", {"clear": True})
            assert await served.get("/history") == {}

    asyncio.run(scenario())


def test_jobs_are_listed_newest_first_and_by_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            done = await served.queue(SAY, extra_data={"extra_pnginfo": {"workflow": WORKFLOW}}, client_id="tab")
            await served.done(done)
            failed = await served.queue({"1": node("Break", how="error")})
            await served.done(failed)
            gate = await _gated(served)
            pending = await served.queue(SAY)
            page = await served.get("/jobs")
            assert [(job["id"], job["status"]) for job in page["jobs"]] == [
                (pending, "pending"), (gate, "in_progress"), (failed, "failed"), (done, "completed"),
            ]  # fmt: skip
            assert page["pagination"] == {"offset": 0, "limit": 4, "total": 4, "has_more": False}
            assert all(isinstance(job["create_time"], int) and isinstance(job["priority"], int) for job in page["jobs"])
            page = await served.get("/jobs?status=in_progress,pending&limit=1&offset=0")
            assert [job["id"] for job in page["jobs"]] == [pending]
            assert page["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
            assert [job["id"] for job in (await served.get("/jobs?status=completed&limit=200&offset=0"))["jobs"]] == [done]
            for bad in ("status=done", "limit=0", "limit=x", "offset=-1"):
                assert "error" in await served.get(f"/jobs?{bad}", 400)
            assert await served.get("/jobs/unknown", 404) == {"error": "Job not found"}
            detail = await served.get(f"/jobs/{done}")
            assert detail["workflow"]["extra_data"]["extra_pnginfo"]["workflow"] == WORKFLOW
            assert (detail["workflow"]["prompt"], detail["outputs"], detail["workflow_id"]) == (SAY, {"1": {"text": ["x"]}}, "wf-1")
            assert detail["execution_status"]["status_str"] == "success"
            assert detail["create_time"] <= detail["execution_start_time"] <= detail["execution_end_time"]
            assert (detail["outputs_count"], detail["previewable_outputs_count"]) == (1, 0)
            assert detail["preview_output"] == {"nodeId": "1", "mediaType": "text", "content": "x"}
            Gate.opened.set()

    asyncio.run(scenario())


def test_credentials_are_not_told_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            prompt_id = await served.queue(SAY, extra_data={"api_key_comfy_org": "secret", "auth_token_comfy_org": "secret"})
            await served.done(prompt_id)
            for path in ("/history", f"/jobs/{prompt_id}"):
                assert "secret" not in str(await served.get(path))

    asyncio.run(scenario())
