"""The whole application on aiohttp's test server, between folders that it must not leave."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aiohttp.test_utils import TestClient, TestServer
from kintsugi.core.folders import Folders
from kintsugi.headless.node_registry import full_registry
from kintsugi.headless.server.app import build_app
from kintsugi.headless.server.context import Context
from kintsugi.headless.server.engine import Engine, EngineSettings
from kintsugi.headless.server.options import ServerOptions
from PIL import Image

CANARY = "canary-5d41402abc4b"
INDEX = "<!doctype html><title>canvas</title>" + "<p>text</p>" * 100


@dataclass(frozen=True)
class Place:
    """base: the server's own folders. outside: what it must neither read nor write, to which links inside `base` lead."""

    base: Path
    outside: Path

    def folder(self, name: str) -> Path:
        """input, output, temp, user or models."""
        return self.base / name

    def outside_hash(self) -> str:
        """Names and contents of everything outside, and which folders lie beside the server's."""
        digest = hashlib.sha256()
        for path in sorted(self.outside.rglob("*")):
            digest.update(path.relative_to(self.outside).as_posix().encode())
            digest.update(path.read_bytes() if path.is_file() else b"folder")
        digest.update(",".join(sorted(path.name for path in (*self.base.iterdir(), *self.base.parent.iterdir()))).encode())
        return digest.hexdigest()


def new_place(folder: Path) -> Place:
    """Folders with a picture and a text each, secrets outside, and links that lead to those."""
    place = Place(folder / "base", folder / "outside")
    place.outside.mkdir(parents=True)
    for name in ("secret.txt", "secret.json", "secret.js", "secret.safetensors"):
        (place.outside / name).write_text(f'{{"secret": "{CANARY}"}}')
    draw(place.outside / "secret.png")
    for name in ("input", "output", "temp", "user/default", "models/vae", "page/assets"):
        own = place.base / name
        own.mkdir(parents=True)
        draw(own / "a.png")
        (own / "saved.json").write_text("{}")
        (own / "link_folder").symlink_to(place.outside, target_is_directory=True)
        for secret in place.outside.iterdir():
            (own / f"link{secret.suffix}").symlink_to(secret)
        (own / "circle").symlink_to(own / "circle")
        os.mkfifo(own / "pipe.png")
    (place.base / "page" / "index.html").write_text(INDEX)
    (place.base / "page" / "assets" / "main-D8pA5qkx.js").write_text("let a = 1;\n" * 1000)
    (place.base / "page" / "assets" / "main-D8pA5qkx.js.map").write_text("{}")
    return place


def draw(path: Path, size: tuple[int, int] = (24, 16), alpha: bool = False) -> bytes:
    """A picture of noise as a file; its bytes."""
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 4 if alpha else 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path.read_bytes()


@asynccontextmanager
async def whole_server(place: Place, **options: Any) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of the application with those options, on 127.0.0.1."""
    folders = Folders(*(place.folder(name) for name in ("input", "output", "temp", "models")))
    chosen = replace(ServerOptions(user=place.folder("user"), front_end=place.folder("page")), **options)
    registry = full_registry()
    engine = Engine(registry, EngineSettings(torch.device("cpu"), torch.float32, folders))
    context = Context(chosen, folders, chosen.user / "default", registry, engine)
    async with TestClient(TestServer(build_app(context))) as client:
        yield client
