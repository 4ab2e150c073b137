"""Progress without a window: what it costs nobody."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from itertools import cycle

import pytest
from kintsugi.core.runtime import Progress, SilentProgress
from kintsugi.headless.progress import ProgressDisplay, StepBar, StepLines, _bars
from rich.console import Console
from torch import Tensor


def picture() -> Tensor:
    raise AssertionError("a picture was made that nobody sees")


@pytest.mark.parametrize("kind", ["silent", "lines", "bar"])
def test_where_no_picture_is_shown_none_is_made(kind: str) -> None:
    checks: list[None] = []

    def check() -> None:
        checks.append(None)

    display = ProgressDisplay()
    if kind == "bar":
        display._bars = _bars()
    progress: Progress = SilentProgress(check) if kind == "silent" else display.steps(2, "Restoring", check)
    assert isinstance(progress, StepLines) == (kind == "lines")
    progress.advance(preview=picture)
    progress.advance(preview=picture)
    assert len(checks) == 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What time.monotonic() says; the clock of the wall jumps back and forth meanwhile."""
    now, jumps = [1000.0], cycle((0.0, 4e9, -86_400.0))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    yield now


def nothing() -> None:
    pass


def test_lines_tell_the_rate_and_the_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay().steps(40_000, "Pictures", nothing)
    for _ in range(120):
        clock[0] += 1.25
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "Pictures: 120/40000, 0.8/s, 13 h 50 min left"
    assert len(lines) == 15


def test_a_burst_of_kept_pictures_promises_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay().steps(20_100, "Pictures", nothing)
    progress.advance(20_000)
    for _ in range(2):
        clock[0] += 12
        progress.advance()
    assert capsys.readouterr().err.splitlines() == [
        "Pictures: 20001/20100, 5.0/min, 19 min 48 s left",
        "Pictures: 20002/20100, 5.0/min, 19 min 36 s left",
    ]


def test_the_last_line_has_nothing_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay().steps(1, "Pictures", nothing)
    clock[0] += 20
    progress.advance()
    assert capsys.readouterr().err == "Pictures: 1/1, 3.0/min\n"


@pytest.mark.parametrize("width", [60, 80])
def test_a_bar_tells_the_rate_and_the_time_left_on_a_usual_terminal(clock: list[float], width: int) -> None:
    bars = _bars()
    progress = StepBar(bars, 40_000, "Pictures", nothing)
    for _ in range(120):
        clock[0] += 1.25
        progress.advance()
    console = Console(width=width, file=io.StringIO())
    with console.capture() as shown:
        console.print(bars.get_renderable())
    assert shown.get().splitlines()[0].endswith("120/40000 0.8/s, 13 h 50 min left")
