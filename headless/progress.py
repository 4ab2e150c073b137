"""Progress for a person: bars on a terminal, a plain line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .pace import Pace

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..core.runtime import MakesPicture, Progress

SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Bars that live inside a `with` block; without a terminal the same calls write lines."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None

    def steps(self, total: int, label: str, check_interrupted: Callable[[], None]) -> Progress:
        """Progress of one piece of work; its bar goes when it is complete."""
        if self._bars:
            return StepBar(self._bars, total, label, check_interrupted)
        return StepLines(total, label, check_interrupted)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    # Results on a redirected stdout must go there, and not above the bars on stderr.
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())


class StepBar:
    """One bar on the terminal."""

    def __init__(self, bars: Bars, total: int, label: str, check_interrupted: Callable[[], None]) -> None:
        self._bars, self._check, self._left = bars, check_interrupted, total
        self._pace = Pace(time.monotonic())
        self._task: TaskID = bars.add_task(label, total=total, pace="")

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self._check()
        self._left -= steps
        self._pace.advance(time.monotonic(), steps)
        self._bars.update(self._task, advance=steps, pace=self._pace.words(self._left))
        if self._left <= 0 and self._task in self._bars.task_ids:
            self._bars.remove_task(self._task)


class StepLines:
    """`label: 3/20, 0.8/s, 21 s left`, at most once in ten seconds, so that quick work stays quiet."""

    def __init__(self, total: int, label: str, check_interrupted: Callable[[], None]) -> None:
        self._total, self._label, self._check = total, label, check_interrupted
        self._done, self._last = 0, time.monotonic()
        self._pace = Pace(self._last)

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self._check()
        self._done += steps
        now = time.monotonic()
        self._pace.advance(now, steps)
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            words = self._pace.words(self._total - self._done)
            sys.stderr.write(f"{self._label}: {self._done}/{self._total}{words and f', {words}'}\n")
            sys.stderr.flush()
