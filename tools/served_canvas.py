"""What tools that show the canvas share: a `kintsugi serve` with the sample photo, its page in a browser, and small pictures of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "workflows"
LARGEST_FILE = 60_000
SIDES = (1900, 1700, 1500, 1300, 1100)  # longest side of a picture in pixels; the first that makes a small file is taken
QUALITIES = range(35, 90, 5)
PATIENCE = 180_000  # milliseconds, for machines with other work


def workflow_of(name: str) -> dict[str, Any]:
    """A workflow that ships, as its file holds it."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


@contextmanager
def served() -> Iterator[str]:
    """The address of a `kintsugi serve` that knows the sample photo as example.png, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "input").mkdir()
        Image.open(ROOT / "docs" / "sample" / "sample.jpg").save(base / "input" / "example.png")
        command = [sys.executable, "-m", "kintsugi", "serve", "--port", "0", "--base-directory", folder, "--cpu", "--disable-auto-launch"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                yield address_in(server)
            finally:
                server.terminate()


def address_in(server: subprocess.Popen[str]) -> str:
    """The address that a server prints once it answers."""
    for line in server.stdout or ():
        if found := re.search(r"http://\S+", line):
            return found[0].rstrip("/.")
    raise SystemExit("kintsugi serve ended before it answered.")


@contextmanager
def opened(url: str, browser: str | None) -> Iterator[Page]:
    """The editor in a browser, empty and without the greeting of a first visit."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
        chromium = playwright.chromium.launch(executable_path=browser, args=flags)
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.request.post(f"{url}/api/settings", data={"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        page.goto(url)
        page.wait_for_function("window.app?.graph && window.app.canvas && window.app.extensionManager?.workflow")
        yield page
        chromium.close()


def small_jpeg(picture: Image.Image) -> bytes:
    """The largest and best JPEG that keeps to the size of a picture in this project."""
    for side in SIDES:
        smaller = picture.convert("RGB")
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        fitting = bisect_right(QUALITIES, LARGEST_FILE, key=lambda quality: len(jpeg(smaller, quality)))
        if fitting:
            return jpeg(smaller, QUALITIES[fitting - 1])
    raise SystemExit("A screenshot is too rich for a small picture; allow a smaller side.")


def jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=True, progressive=True)
    return stream.getvalue()
