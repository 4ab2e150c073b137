"""The page that shows the workflows: its words come from their notes, its pictures from the canvas."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))

PAGES = ("templates", "canvas", "finished_run", "slider", "help")


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """tools/make_screenshots.py, which is a script beside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield importlib.import_module("make_screenshots")


@pytest.fixture(scope="module")
def canvas(tool: ModuleType) -> ModuleType:
    """tools/served_canvas.py, once tools/ can be imported from."""
    return importlib.import_module("served_canvas")


def test_every_workflow_is_on_the_page(tool: ModuleType) -> None:
    assert sorted(tool.ORDER) == WORKFLOWS


def test_the_page_says_what_the_notes_say(tool: ModuleType) -> None:
    told = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    assert told == tool.page_text(), "run tools/make_screenshots.py --page-only"


@pytest.mark.parametrize("name", [*(f"workflows/{name}" for name in WORKFLOWS), *(f"canvas/{name}" for name in PAGES)])
def test_a_screenshot_is_a_small_jpeg(name: str, canvas: ModuleType) -> None:
    path = ROOT / "docs" / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and min(picture.size) > 400
    assert path.stat().st_size <= canvas.LARGEST_FILE


def test_every_picture_of_the_canvas_is_on_its_page() -> None:
    shown = (ROOT / "docs" / "canvas.md").read_text(encoding="utf-8")
    assert all(f"(canvas/{name}.jpg)" in shown for name in PAGES)
    assert sorted(path.stem for path in (ROOT / "docs" / "canvas").iterdir()) == sorted(PAGES)


def test_a_plain_screenshot_stays_large_and_one_that_fits_at_no_size_is_refused(canvas: ModuleType) -> None:
    noise, plain = Image.effect_noise((2400, 1200), 60), Image.new("RGB", (2400, 1200), "gray")
    assert canvas.small_jpeg(plain) == canvas.jpeg(plain.resize((1900, 950)), 85)
    with pytest.raises(SystemExit):
        canvas.small_jpeg(noise)
