"""One server and one browser for all tests of what a person sees, and a page of its own for each of them.

These tests come after all others: while a browser is driven, no other test could run an event loop of its own.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from watched_pages import Served, watched

INSTALL = "These tests drive Chromium. Install it (Debian: apt-get install chromium), or put the path of its program into $CHROMIUM."
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
START_SECONDS, END_SECONDS = 300, 60
# Milliseconds that a page may take for anything. Only a failing test waits that long.
PATIENCE = 120_000
HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "docs" / "sample" / "sample.jpg"
PHOTO_SIDE = 96
# A canvas that is drawn less often leaves more of a small machine to the rest.
SETTINGS = {"LiteGraph.Canvas.MaximumFps": 15, "Comfy.Minimap.Visible": False}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of this folder last, the others as they were."""
    items.sort(key=lambda item: HERE in item.path.parents)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("serve")
    (base / "input").mkdir()
    with Image.open(SAMPLE) as photo:
        photo.resize((PHOTO_SIDE, PHOTO_SIDE)).save(base / "input" / "example.png")
    command = [sys.executable, "-m", "kintsugi", "serve", "--cpu", "--port", "0", "--disable-auto-launch"]
    command += ["--base-directory", str(base), "--models-directory", str(base / "models")]
    log = base / "log.txt"
    with log.open("w") as errors, subprocess.Popen(command, cwd=base, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            yield Served(announced(process, log), base)
        finally:
            process.terminate()
            process.wait(END_SECONDS)
    assert process.returncode == 0, log.read_text()


def announced(process: subprocess.Popen[str], log: Path) -> str:
    """The address in the line that the server prints once it answers."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else ""
    addresses = [word.rstrip("/") for word in line.split() if word.startswith("http://")]
    if not addresses:
        pytest.fail(f"The server did not start. It said {line!r} and {log.read_text()}")
    return addresses[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.fail(INSTALL)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture(scope="session")
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """What all pages share, so that files of the front end are fetched once."""
    shared = browser.new_context(viewport={"width": 1280, "height": 800})
    shared.request.post(f"{served.url}/api/settings", data=SETTINGS)
    shared.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield shared
    shared.close()


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    with watched(context, served) as opened:
        yield opened
