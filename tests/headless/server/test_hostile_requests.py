"""What a hostile page or program may send, tried against every route: nothing leaks, nothing is written elsewhere, nothing breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from hostile_corpus import (
    BOUNDARY,
    FRAMES,
    HOSTILE_NAMES,
    HOSTS,
    JSON_ROUTES,
    MALFORMED_FORMS,
    MALFORMED_JSON,
    ODD_NAMES,
    ORIGINS,
    RAW_REQUESTS,
    ROUTES_WITH_NAMES,
    ROUTES_WITH_WORDS,
    spellings,
)
from whole_server import CANARY, new_place, whole_server
from yarl import URL

Client = TestClient[Any, Any]
UPLOADS = ("/upload/image", "/upload/mask")
FORM = "multipart/form-data; boundary=" + BOUNDARY.decode()
SMALL_LIMIT = 64 * 1024
# What is longer, aiohttp refuses before it is a request.
LONGEST_LINE = 8000
# An attack takes a second or two; more is meant for machines that are busy with other things.
PATIENCE = 600


def attacked(folder: Path, attack: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Run the attack on a whole server, which must still serve afterwards and have touched nothing outside its folders."""
    place = new_place(folder)
    before = place.outside_hash()

    async def run() -> None:
        async with whole_server(place, **options) as client:
            await asyncio.wait_for(attack(client), PATIENCE)
            assert (await client.get("/users")).status == 200
            assert (await client.get("/object_info/LoadImage")).status == 200
            async with client.ws_connect("/ws") as socket:
                assert (await socket.receive_json(timeout=20))["type"] == "status"

    asyncio.run(run())
    assert place.outside_hash() == before


async def harmless(client: Client, method: str, address: str, **request: Any) -> int:
    """The status of one request, which is no server's fault and whose answer holds no secret."""
    # Written as it is: the client's own address would resolve the dots before they are sent.
    url = URL(f"http://127.0.0.1:{client.port}{address}", encoded=True)
    async with client.session.request(method, url, allow_redirects=False, **request) as answer:
        # A websocket that was opened has no end to read to.
        content = b"" if answer.status == 101 else await answer.read()
        assert answer.status < 500, (method, address, content)
        assert CANARY.encode() not in content, (method, address)
        assert len(address) > LONGEST_LINE or answer.headers["X-Content-Type-Options"] == "nosniff"
        return answer.status


@pytest.mark.parametrize(("method", "route"), ROUTES_WITH_NAMES)
def test_no_hostile_name_reaches_a_file(tmp_path: Path, method: str, route: str) -> None:
    async def attack(client: Client) -> None:
        for name in HOSTILE_NAMES:
            encoded, *others = spellings(name)
            for address in (route, f"/api{route}"):
                status = await harmless(client, method, address.format(name=encoded), data=b"new")
                assert 400 <= status < 500, (name, status)
            for other in others:
                await harmless(client, method, route.format(name=other), data=b"new")

    attacked(tmp_path, attack)


@pytest.mark.parametrize(("method", "route"), [*ROUTES_WITH_NAMES, *ROUTES_WITH_WORDS])
def test_odd_names_surprise_no_route(tmp_path: Path, method: str, route: str) -> None:
    async def attack(client: Client) -> None:
        for name in [*ODD_NAMES, *(HOSTILE_NAMES if (method, route) in ROUTES_WITH_WORDS else [])]:
            for spelled in spellings(name):
                await harmless(client, method, route.format(name=spelled), json={})

    attacked(tmp_path, attack)


def upload_form(fields: dict[str, str]) -> bytes:
    """A form as no browser would write it: whatever the name holds stands in its header as it is, but what would end its line."""
    name = fields["filename"].translate({ord(character): None for character in '\r\n\0"'})
    parts = [f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n\r\nnot a picture']
    parts += [f'Content-Disposition: form-data; name="{field}"\r\n\r\n{value}' for field, value in fields.items() if field != "filename"]
    return b"".join(b"--" + BOUNDARY + b"\r\n" + part.encode() + b"\r\n" for part in parts) + b"--" + BOUNDARY + b"--\r\n"


@pytest.mark.parametrize("field", ["filename", "subfolder", "type"])
def test_no_upload_leaves_its_folder(tmp_path: Path, field: str) -> None:
    async def attack(client: Client) -> None:
        for name in [*HOSTILE_NAMES, *ODD_NAMES]:
            given = {"filename": "b.png", "subfolder": "", "type": "input", field: name}
            for address in UPLOADS:
                form = upload_form({**given, "original_ref": json.dumps(given)})
                status = await harmless(client, "POST", address, data=form, headers={"Content-Type": FORM})
                if address == UPLOADS[1] or (field != "filename" and name in HOSTILE_NAMES):
                    assert 400 <= status < 500, (field, name)

    attacked(tmp_path, attack)


def prompts_with(name: str) -> Iterable[dict[str, Any]]:
    """Prompts with the name in every place where one can stand."""
    load = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    yield {"1": {"class_type": "LoadImage", "inputs": {"image": name}}, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    yield {
        "1": {"class_type": "KintsugiLoadPhoto", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    yield {"1": load, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}}}
    yield {"1": load, "2": {"class_type": "KintsugiSavePhoto", "inputs": {
        "images": ["1", 0], "filename_prefix": name, "format": "png", "bit_depth": "8", "quality": 90, "keep_metadata": True}}}  # fmt: skip
    yield {"1": {"class_type": name, "inputs": {name: name}}}
    yield {name: load, "2": {"class_type": "PreviewImage", "inputs": {"images": [name, 0]}}}


def test_no_name_in_a_prompt_reads_or_writes_elsewhere(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        for name in HOSTILE_NAMES:
            for prompt in prompts_with(name):
                body = {"prompt": prompt, "prompt_id": None, "client_id": name, "extra_data": {"extra_pnginfo": {"workflow": {"a": name}}}}
                await harmless(client, "POST", "/prompt", json=body)
            await harmless(client, "POST", "/prompt", json={"prompt": prompt, "prompt_id": name})
        while (await (await client.get("/prompt")).json())["exec_info"]["queue_remaining"]:
            await asyncio.sleep(0.5)
        history = await (await client.get("/history")).text()
        assert CANARY not in history

    attacked(tmp_path, attack)


@pytest.mark.parametrize(("method", "route"), JSON_ROUTES)
def test_malformed_json_is_refused_politely(tmp_path: Path, method: str, route: str) -> None:
    async def attack(client: Client) -> None:
        for body in MALFORMED_JSON:
            status = await harmless(client, method, route, data=body, headers={"Content-Type": "application/json"})
            assert status < 300 or status == 400, (route, body[:60], status)

    attacked(tmp_path, attack)


@pytest.mark.parametrize("route", UPLOADS)
def test_malformed_forms_are_refused(tmp_path: Path, route: str) -> None:
    async def attack(client: Client) -> None:
        whole = "multipart/form-data; boundary=" + BOUNDARY.decode()
        for kind in (
            whole,
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=edge",
            "text/plain",
            "nonsense",
        ):
            for form in MALFORMED_FORMS:
                await harmless(client, "POST", route, data=form, headers={"Content-Type": kind})

    attacked(tmp_path, attack)


@pytest.mark.parametrize("route", [*UPLOADS, "/prompt", "/settings", "/userdata/large.json"])
def test_what_is_too_large_is_refused_and_kept_nowhere(tmp_path: Path, route: str) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 4096

    async def attack(client: Client) -> None:
        form = FormData()
        form.add_field("image", b"x" * 2 * SMALL_LIMIT, filename="large.png")
        for body in (form, b"x" * 2 * SMALL_LIMIT, chunks()) if route not in UPLOADS else (form,):
            assert await harmless(client, "POST", route, data=body) == 413

    attacked(tmp_path, attack, upload_limit=SMALL_LIMIT)
    assert not list(tmp_path.rglob("large*"))


def every_route() -> list[tuple[str, str]]:
    named = [(method, route.format(name="a.png")) for method, route in [*ROUTES_WITH_NAMES, *ROUTES_WITH_WORDS]]
    plain = ["/", "/users", "/object_info", "/ws", "/system_stats", "/queue", "/extensions", "/i18n", "/internal/logs", "/nonsense"]
    return [*named, *JSON_ROUTES, *(("POST", route) for route in UPLOADS), *(("GET", route) for route in plain)]


def test_only_our_own_page_is_answered(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        for method, route in every_route():
            for headers in (
                {"Host": "evil.example"},
                {"Origin": "http://evil.example"},
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):
                assert await harmless(client, method, route, headers=headers) == 403, (method, route, headers)

    attacked(tmp_path, attack)


def test_hosts_and_origins_are_compared_exactly(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        port = str(client.port)
        for host, ours in HOSTS:
            status = await harmless(client, "GET", "/users", headers={"Host": host.replace("{port}", port)})
            assert (status == 200) is ours, host
        for origin in ORIGINS:
            for address in ("/users", "/ws"):
                assert await harmless(client, "GET", address, headers={"Origin": origin.replace("{port}", port)}) == 403, origin
        own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
        assert await harmless(client, "POST", "/settings", headers=own, json={}) == 200

    attacked(tmp_path, attack)


def test_another_site_may_only_send_a_person_to_the_first_page(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert await harmless(client, "GET", "/", headers=link) == 200
        for headers in ({**link, "Sec-Fetch-Mode": "no-cors"}, {**link, "Sec-Fetch-Dest": "iframe"}):
            assert await harmless(client, "GET", "/", headers=headers) == 403
        assert await harmless(client, "GET", "/view?filename=a.png", headers=link) == 403
        assert await harmless(client, "POST", "/", headers=link) == 403

    attacked(tmp_path, attack)


async def answer_to(client: Client, sent: bytes) -> bytes:
    """What the server says to these bytes on a connection of their own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(sent)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return await asyncio.wait_for(reader.read(1_000_000), 10)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def test_requests_that_no_browser_sends_end_nothing(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        for request in RAW_REQUESTS:
            answer = await answer_to(client, request)
            assert CANARY.encode() not in answer
            assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5")), (request[:80], answer[:300])

    attacked(tmp_path, attack)


def test_malformed_websocket_frames_end_only_their_own_connection(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        handshake = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with client.ws_connect("/ws") as other:
            for frame in FRAMES:
                answer = await answer_to(client, handshake.encode() + frame)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 101"), frame[:20]
            assert (await other.receive_json(timeout=20))["type"] == "status"
            await other.send_json({"type": "feature_flags", "data": {}})
            assert (await other.receive_json(timeout=20))["type"] == "feature_flags"

    attacked(tmp_path, attack)


def large_prompts() -> Iterable[dict[str, Any]]:
    """10,000 nodes: one after the other, side by side, in a circle, and all of them unknown."""
    load = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    numbers = [str(number) for number in range(10_000)]
    invert = {
        now: {"class_type": "ImageInvert", "inputs": {"image": [before, 0]}}
        for before, now in zip(["load", *numbers], numbers, strict=False)
    }
    end = {"class_type": "PreviewImage", "inputs": {"images": [numbers[-1], 0]}}
    yield {"load": load, **invert, "end": {**end, "inputs": {"images": [numbers[-1], 7]}}}
    yield {**invert, "0": {"class_type": "ImageInvert", "inputs": {"image": [numbers[-1], 0]}}, "end": end}
    yield {number: {"class_type": "PreviewImage", "inputs": {"images": ["missing", 0]}} for number in numbers}
    yield {number: {"class_type": f"Unknown{number}", "inputs": {}} for number in numbers}


def test_ten_thousand_nodes_are_looked_through_while_others_are_answered(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        for prompt in large_prompts():
            validating = asyncio.ensure_future(harmless(client, "POST", "/prompt", json={"prompt": prompt}))
            while not validating.done():
                assert (await asyncio.wait_for(client.get("/users"), 15)).status == 200
                await asyncio.sleep(0.05)
            assert await validating == 400

    attacked(tmp_path, attack)


def test_a_token_is_asked_for_on_every_route(tmp_path: Path) -> None:
    async def attack(client: Client) -> None:
        for method, route in every_route():
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic word"}, {"Cookie": "kintsugi_8188=word"}):
                assert await harmless(client, method, route, headers=headers) == 401, (method, route)
            assert await harmless(client, method, f"{route}{'&' if '?' in route else '?'}token=wor%FF", headers={}) == 401
        client.session.headers["Authorization"] = "Bearer word"

    attacked(tmp_path, attack, token="word")
