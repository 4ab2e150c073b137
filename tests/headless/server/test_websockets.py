"""Tabs that misbehave, and prompts that are large: the server goes on for everyone else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import WSMsgType
from kintsugi.headless.server import hub
from serving_prompts import Gate, node, serving

SAY = {"1": node("Say", text="x")}
MALFORMED: list[str | bytes] = [
    "", "{", "null", "[]", "7", '"feature_flags"', '{"type": "feature_flags"}', '{"type": "feature_flags", "data": []}',
    '{"type": ["feature_flags"], "data": {}}', "[" * 60_000, "\x00", "NaN", b"", b"\xff\xfe", b"x" * 60_000, "\U0001f600" * 1000,
]  # fmt: skip


def test_malformed_frames_mean_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            for frame in MALFORMED:
                await (tab.socket.send_str(frame) if isinstance(frame, str) else tab.socket.send_bytes(frame))
            await tab.end(await served.queue(SAY, client_id=tab.sid))
            assert tab.kinds().count("feature_flags") == 1

    asyncio.run(scenario())


def test_a_huge_frame_ends_its_own_connection_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            rude, tab = await served.tab(), await served.tab()
            for frame in ("x" * 4_000_000, json.dumps({"type": "feature_flags", "data": {"x": "y" * 1_000_000}})):
                # The server may be gone before it has read all.
                with suppress(ConnectionError):
                    await rude.socket.send_str(frame)
                assert (await rude.socket.receive(timeout=30)).type not in (WSMsgType.TEXT, WSMsgType.BINARY)
                rude = await served.tab(rude.sid)
            await tab.end(await served.queue(SAY, client_id=tab.sid))

    asyncio.run(scenario())


def test_a_request_that_is_no_websocket_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            for headers in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}, {"Upgrade": "x", "Connection": "Upgrade"}):
                async with served.client.get("/ws", headers=headers) as answer:
                    assert answer.status == 400
            assert (await served.done(await served.queue(SAY)))["status"] == "completed"

    asyncio.run(scenario())


@asynccontextmanager
async def _deaf_tab(port: int, sid: str) -> AsyncIterator[None]:
    """A websocket that is opened and never read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    lines = (f"GET /ws?clientId={sid} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "")  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    await reader.readuntil(b"\r\n\r\n")
    try:
        yield
    finally:
        writer.transport.abort()


def test_a_tab_that_does_not_read_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served, _deaf_tab(served.client.port or 0, "shared"):
            tab = await served.tab("shared")
            for index in range(100):
                prompt = {"1": node("Say", text=f"{index} " + "x" * 100_000)}
                await tab.end(await served.queue(prompt, client_id="shared"))
            assert tab.kinds().count("executed") == 100
            assert len(caplog.messages) == 1 and "stopped reading" in caplog.messages[0]

    monkeypatch.setattr(hub, "MOST_WAITING_BYTES", 1_000_000)
    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_prompt_of_ten_thousand_nodes_holds_up_nobody(tmp_path: Path) -> None:
    prompt = {str(index): node("Plus", value=[str(index - 1), 0] if index else 1) for index in range(9_990)}
    prompt |= {f"end{index}": node("Say", text="x", after=[str(9_989 - index), 0]) for index in range(10)}
    held = []

    async def watch() -> None:
        """The event loop's own work between two looks; the clock on the wall would count what else the machine does."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.01)
            held.append(time.thread_time() - before)
            before = time.thread_time()

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            body = json.dumps({"prompt": prompt, "client_id": tab.sid})
            watching = asyncio.create_task(watch())
            async with served.client.post("/prompt", data=body, headers={"Content-Type": "application/json"}) as answer:
                prompt_id = (await answer.json())["prompt_id"]
            await tab.end(prompt_id)
            watching.cancel()
            assert tab.kinds().count("executing") == 10_001
            assert (await served.get(f"/jobs/{prompt_id}"))["status"] == "completed"
            refused = {**prompt, "0": node("Plus", value=["9989", 0])}
            assert (await served.post("/prompt", {"prompt": refused}, 400))["error"]["type"] == "prompt_outputs_failed_validation"

    asyncio.run(scenario())
    assert max(held) < 0.4


def test_the_event_loop_answers_while_a_prompt_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            gate = await served.queue({"1": node("Gate")})
            await served.running(gate)
            assert await served.get("/prompt") == {"exec_info": {"queue_remaining": 1}}
            Gate.opened.set()
            await served.done(gate)

    asyncio.run(scenario())
