"""Ctrl-C and a polite kill, kept until a step is done."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on a Ctrl-C that its processes had from the terminal already.
ECHO = 2.0
"""Seconds."""


class StopRequest:
    """Inside its block the first SIGINT or SIGTERM is only noted; another one, after ECHO, does what it always did."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
        elif time.monotonic() - self._asked_at > ECHO:
            self.__exit__()
            signal.raise_signal(number)


def ignore_stop(worker: int) -> None:
    """For the processes that make batches: they are needed until the step is done, and go when the training process goes."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
