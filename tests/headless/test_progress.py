"""Progress without a window: what it costs nobody."""

from __future__ import annotations

import pytest
from kintsugi.core.runtime import Progress, SilentProgress
from kintsugi.headless.progress import ProgressDisplay, StepLines, _bars
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
