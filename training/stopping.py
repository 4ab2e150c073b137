"""Ctrl-C and a polite kill, kept until a step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Inside its block the first SIGINT or SIGTERM is only noted; a second one does what it always did."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()


def ignore_stop(worker: int) -> None:
    """For the processes that make batches: they are needed until the step is done, and go when the training process goes."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
