"""A real server for tests: our routes on aiohttp's test server, tabs that listen, and small nodes that take their time."""

# ruff: noqa: N802

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aiohttp import ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from kintsugi.core.folders import Folders
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.registry import Registry
from kintsugi.core.runtime import current_host
from kintsugi.headless.server import job_routes, prompt_routes, queue_routes, websocket_routes
from kintsugi.headless.server.context import Context
from kintsugi.headless.server.engine import Engine, EngineSettings
from kintsugi.headless.server.options import ServerOptions
from PIL import Image

# Machines that run tests may do much else.
PATIENCE = 240.0
DONE = ("completed", "failed", "cancelled")


class Steps:
    """Does so many steps of so many seconds each, telling of each, with a picture."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "work", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"steps": ("INT", {"max": 100_000}), "seconds": ("FLOAT", {"max": 100.0})},
            "optional": {"seed": ("INT", {"default": 0})},
        }

    def work(self, steps: int, seconds: float, seed: int = 0) -> dict[str, Any]:
        progress = current_host().progress(steps, "Working")
        for _ in range(steps):
            time.sleep(seconds)
            progress.advance(preview=lambda: torch.rand(64, 96, 3))
        return {"ui": {"text": [f"seed {seed}"]}, "result": (steps,)}


class Gate:
    """Waits until the test opens it, or the prompt is stopped."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "wait", True
    opened = threading.Event()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls) -> float:
        return float("nan")

    def wait(self) -> tuple[int]:
        while not Gate.opened.wait(0.01):
            current_host().check_interrupted()
        return (1,)


class Say:
    """Shows a text, or whatever else."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "say", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {})}, "optional": {"after": ("INT,IMAGE", {"forceInput": True})}}

    def say(self, text: str, after: Any = None) -> dict[str, Any]:
        shown = {"tensor": torch.zeros(3), "nan": float("nan")}.get(text, text)
        return {"ui": {"text": [shown]}}


class Break:
    """Fails in one of several ways."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "fail", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"how": (["error", "exit", "circle"],)}, "hidden": {"own": "UNIQUE_ID"}}

    def fail(self, how: str, own: str) -> dict[str, Any]:
        if how == "error":
            raise ValueError("it broke")
        if how == "exit":
            raise SystemExit(3)
        names = [f"{own}.0.0.a", f"{own}.0.0.b"]
        circle = {name: node("Plus", value=[other, 0]) for name, other in zip(names, reversed(names), strict=True)}
        return {"result": ([names[0], 0],), "expand": circle}


class Plus:
    RETURN_TYPES, FUNCTION = ("INT",), "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def add(self, value: int) -> tuple[int]:
        return (value + 1,)


class Grow:
    """Stands for two Plus nodes and a text of its own."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "grow", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}, "hidden": {"own": "UNIQUE_ID"}}

    def grow(self, value: int, own: str) -> dict[str, Any]:
        plus, say = f"{own}.0.0.1", f"{own}.0.0.2"
        return {"result": ([plus, 0],), "expand": {plus: node("Plus", value=value), say: node("Say", text="grown", after=[plus, 0])}}


NODES: dict[str, type] = {each.__name__: each for each in (Steps, Gate, Say, Break, Plus, Grow)}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


INVERT = {
    "1": node("LoadImage", image="photo.png"),
    "2": node("ImageInvert", image=["1", 0]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="inverted"),
    "4": node("PreviewImage", images=["2", 0]),
}
WORKFLOW = {"id": "wf-1", "version": 0.4, "nodes": [], "links": []}


@dataclass
class Tab:
    """A browser tab: its websocket and what it was told."""

    socket: ClientWebSocketResponse
    sid: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)

    async def next(self) -> dict[str, Any]:
        """The next text message; binary frames on the way are kept."""
        while True:
            received = await self.socket.receive(timeout=PATIENCE)
            if received.type is WSMsgType.BINARY:
                self.frames.append(received.data)
                continue
            assert received.type is WSMsgType.TEXT, received
            self.messages.append(json.loads(received.data))
            return self.messages[-1]

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not wanted(message := await self.next()):
            pass
        return message

    async def kind(self, kind: str) -> dict[str, Any]:
        """Data of the next message of that type."""
        return (await self.until(lambda message: message["type"] == kind))["data"]

    async def end(self, prompt_id: str) -> list[dict[str, Any]]:
        """Everything up to the last word about a prompt."""
        await self.until(lambda message: message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id})
        return self.messages

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]


@dataclass
class Served:
    """The server and what a client does with it."""

    engine: Engine
    client: TestClient[Any, Any]
    folders: Folders

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.client.get(path) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.client.post(path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def queue(self, prompt: dict[str, Any], **more: Any) -> str:
        """Post a prompt; its id."""
        answer = await self.post("/prompt", {"prompt": prompt, **more})
        return str(answer["prompt_id"])

    async def done(self, prompt_id: str) -> dict[str, Any]:
        """The job, once it is done."""
        deadline = time.monotonic() + PATIENCE
        while (job := await self.get(f"/jobs/{prompt_id}"))["status"] not in DONE:
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.01)
        return dict(job)

    async def running(self, prompt_id: str) -> None:
        while (await self.get(f"/jobs/{prompt_id}"))["status"] != "in_progress":
            await asyncio.sleep(0.01)

    async def tab(self, sid: str | None = None, metadata: bool = True) -> Tab:
        """A new tab that has been welcomed."""
        tab = Tab(await self.client.ws_connect("/ws" if sid is None else f"/ws?clientId={sid}"))
        tab.sid = (await tab.next())["data"]["sid"]
        if metadata:
            await tab.socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            await tab.kind("feature_flags")
        return tab


@asynccontextmanager
async def serving(tmp_path: Path, registry: Registry | None = None, **changes: Any) -> AsyncIterator[Served]:
    """The routes of prompts on a free port; `changes` of EngineSettings."""
    Gate.opened.clear()
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp", tmp_path / "models")
    registry = registry or Registry({**stock_nodes.NODE_CLASS_MAPPINGS, **NODES})
    settings = replace(EngineSettings(torch.device("cpu"), torch.float32, folders), **changes)
    engine = Engine(registry, settings)
    context = Context(ServerOptions(user=tmp_path / "user"), folders, tmp_path / "user", registry, engine)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    for module in (prompt_routes, queue_routes, job_routes, websocket_routes):
        app.add_routes(module.routes(context))

    async def start(_app: web.Application) -> None:
        engine.start()

    async def close(_app: web.Application) -> None:
        await engine.close()

    app.on_startup.append(start)
    app.on_shutdown.append(close)
    async with TestClient(TestServer(app)) as client:
        yield Served(engine, client, folders)


def write_photo(folder: Path, name: str = "photo.png") -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def preview_of(frame: bytes) -> tuple[dict[str, Any], bytes]:
    """(metadata, file) of a preview frame of type 4."""
    kind, length = struct.unpack(">II", frame[:8])
    assert kind == 4
    return json.loads(frame[8 : 8 + length]), frame[8 + length :]
