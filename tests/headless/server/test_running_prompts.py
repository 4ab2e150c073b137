"""What a tab is told while its prompt runs, and what comes out."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image
from serving_prompts import INVERT, WORKFLOW, Gate, node, preview_of, serving, write_photo


def test_a_prompt_is_told_in_order_and_ends_with_nothing_running(tmp_path: Path) -> None:
    pixels = write_photo(tmp_path / "input")

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt_id = await served.queue(INVERT, client_id=tab.sid)
            messages = await tab.end(prompt_id)
            kinds = [kind for kind, _ in groupby(tab.kinds()[2:]) if kind != "progress_state"]
            assert kinds[:4] == ["status", "execution_start", "execution_cached", "executing"]
            assert kinds[-3:] == ["execution_success", "status", "executing"]
            assert messages[-2]["data"]["status"]["exec_info"]["queue_remaining"] == 0
            ran = [message["data"]["node"] for message in messages if message["type"] == "executing"]
            assert ran[:2] == ["1", "2"] and set(ran[2:4]) == {"3", "4"} and ran[4] is None
            shown = {message["data"]["node"]: message["data"] for message in messages if message["type"] == "executed"}
            entry = {"filename": "inverted_00001_.png", "subfolder": "", "type": "output"}
            assert shown["3"] == {"node": "3", "display_node": "3", "output": {"images": [entry]}, "prompt_id": prompt_id}
            assert shown["4"]["output"]["images"][0]["type"] == "temp"
            last = [message["data"] for message in messages if message["type"] == "progress_state"][-1]
            assert {name: state["state"] for name, state in last["nodes"].items()} == dict.fromkeys("1234", "finished")

    asyncio.run(scenario())
    with Image.open(tmp_path / "output/inverted_00001_.png") as image:
        assert np.abs(np.asarray(image).astype(int) - (255 - pixels.astype(int))).max() <= 1


def test_a_second_equal_prompt_is_remembered_and_shows_its_pictures_again(tmp_path: Path) -> None:
    write_photo(tmp_path / "input")

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            await tab.end(await served.queue(INVERT, client_id=tab.sid))
            tab.messages.clear()
            messages = await tab.end(await served.queue(INVERT, client_id=tab.sid))
            cached = next(message["data"]["nodes"] for message in messages if message["type"] == "execution_cached")
            assert set(cached) == {"1", "2", "3", "4"}
            assert {message["data"]["node"] for message in messages if message["type"] == "executed"} == {"3", "4"}
            assert [message["data"]["node"] for message in messages if message["type"] == "executing"] == [None]

    asyncio.run(scenario())


def test_saved_pictures_carry_prompt_and_workflow_unless_that_is_off(tmp_path: Path) -> None:
    write_photo(tmp_path / "input")

    async def scenario(stores: bool) -> None:
        async with serving(tmp_path, stores_workflows=stores) as served:
            extra = {"extra_pnginfo": {"workflow": WORKFLOW}}
            assert (await served.done(await served.queue(INVERT, extra_data=extra)))["status"] == "completed"

    asyncio.run(scenario(True))
    asyncio.run(scenario(False))
    with Image.open(tmp_path / "output/inverted_00001_.png") as image:
        assert (json.loads(image.info["prompt"]), json.loads(image.info["workflow"])) == (INVERT, WORKFLOW)
    with Image.open(tmp_path / "output/inverted_00002_.png") as image:
        assert not image.info


def test_progress_and_previews_reach_the_tab_bound_to_their_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, preview_size=48) as served:
            tab, old = await served.tab(), await served.tab(metadata=False)
            prompt_id = await served.queue({"7": node("Steps", steps=6, seconds=0.06)}, client_id=tab.sid)
            messages = await tab.end(prompt_id)
            steps = [message["data"] for message in messages if message["type"] == "progress"]
            assert steps[-1] == {"value": 6, "max": 6, "prompt_id": prompt_id, "node": "7"}
            states = [message["data"]["nodes"]["7"] for message in messages if message["type"] == "progress_state"]
            assert states[-1]["state"] == "finished" and states[-1]["max"] == 6
            assert 2 <= len(tab.frames) <= 4, "at most ten pictures in a second"
            metadata, file = preview_of(tab.frames[0])
            assert metadata["node_id"] == metadata["display_node_id"] == metadata["real_node_id"] == "7"
            assert (metadata["prompt_id"], metadata["image_type"]) == (prompt_id, "image/jpeg")
            with Image.open(io.BytesIO(file)) as image:
                assert (image.format, image.size) == ("JPEG", (48, 32))
            await old.end(await served.queue({"7": node("Steps", steps=1, seconds=0.2, seed=1)}, client_id=old.sid))
            assert struct.unpack(">II", old.frames[0][:8]) == (1, 1)
            assert old.frames[0][8:10] == b"\xff\xd8"

    asyncio.run(scenario())


def test_previews_can_be_off_for_the_server_or_one_prompt(tmp_path: Path) -> None:
    async def scenario(shows: bool, method: str | None) -> int:
        async with serving(tmp_path, shows_previews=shows) as served:
            tab = await served.tab()
            extra = {} if method is None else {"preview_method": method}
            await tab.end(await served.queue({"7": node("Steps", steps=2, seconds=0.0)}, client_id=tab.sid, extra_data=extra))
            return len(tab.frames)

    assert asyncio.run(scenario(True, "none")) == asyncio.run(scenario(False, None)) == 0
    assert asyncio.run(scenario(True, "default")) == asyncio.run(scenario(False, "auto")) == 1


def test_two_tabs_are_told_of_their_own_prompts_and_both_of_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            first, second = await served.tab(), await served.tab()
            assert first.sid != second.sid
            one = await served.queue({"1": node("Say", text="one")}, client_id=first.sid)
            two = await served.queue({"1": node("Say", text="two")}, client_id=second.sid)
            for tab, prompt_id, text in ((first, one, "one"), (second, two, "two")):
                messages = await tab.end(prompt_id)
                assert {message["data"].get("prompt_id", prompt_id) for message in messages} == {prompt_id}
                assert [message["data"]["output"]["text"] for message in messages if message["type"] == "executed"] == [[text]]
                assert tab.kinds().count("status") >= 3

    asyncio.run(scenario())


def test_a_tab_that_comes_back_learns_what_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt_id = await served.queue({"5": node("Gate"), "6": node("Say", text="end", after=["5", 0])}, client_id=tab.sid)
            await tab.kind("executing")
            await tab.socket.close()
            back = await served.tab(tab.sid)
            assert back.sid == tab.sid
            kinds = back.kinds()
            assert kinds.index("execution_start") < kinds.index("executing"), "the page offers to cancel what it saw start"
            again = next(message["data"] for message in back.messages if message["type"] == "executing")
            assert again["node"] == "5"
            stranger = await served.tab()
            assert "executing" not in stranger.kinds()
            Gate.opened.set()
            await back.end(prompt_id)
            assert "executed" in back.kinds()

    asyncio.run(scenario())


def test_a_duplicated_tab_of_the_same_name_is_told_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab("same")
            twin = await served.tab("same")
            await twin.end(await served.queue({"1": node("Say", text="x")}, client_id="same"))
            await twin.socket.close()
            second = await served.queue({"1": node("Say", text="y")}, client_id="same")
            await tab.end(second)
            assert tab.kinds().count("executed") == 2

    asyncio.run(scenario())


def test_nodes_that_grew_are_shown_on_the_node_they_grew_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            prompt_id = await served.queue({"1": node("Grow", value=1)}, client_id=tab.sid)
            messages = await tab.end(prompt_id)
            shown = next(message["data"] for message in messages if message["type"] == "executed")
            assert (shown["node"], shown["display_node"]) == ("1.0.0.2", "1")
            meta = (await served.get(f"/history/{prompt_id}"))[prompt_id]["meta"]
            expected = {"node_id": "1.0.0.2", "display_node": "1", "parent_node": "1", "real_node_id": "1"}
            assert meta == {"1.0.0.2": expected}

    asyncio.run(scenario())


def test_what_json_cannot_hold_is_shown_as_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            tab = await served.tab()
            await tab.end(await served.queue({"1": node("Say", text="tensor"), "2": node("Say", text="nan")}, client_id=tab.sid))
            shown = {message["data"]["node"]: message["data"]["output"] for message in tab.messages if message["type"] == "executed"}
            assert shown == {"1": {"text": ["tensor([0., 0., 0.])"]}, "2": {"text": [None]}}

    asyncio.run(scenario())
