"""What one browser is still to be sent, in order and of bounded size."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Frame = str | bytes


@dataclass(frozen=True)
class _Waiting:
    frame: Frame
    replaceable: bool


class Outgoing:
    """A queue of frames of at most `limit` bytes. A frame with a key takes the place of an unsent one with that key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[object, _Waiting] = {}
        self._bytes = 0
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """True while something waits."""
        return bool(self._waiting)

    def put(self, frame: Frame, key: str | None) -> bool:
        """Queue it last; False when it does not fit, even after dropping those that newer ones would replace anyway."""
        slot: object = next(self._numbers) if key is None else key
        self._remove(slot)
        self._waiting[slot] = _Waiting(frame, key is not None)
        self._bytes += len(frame)
        if self._bytes > self._limit:
            for droppable in [slot for slot, waiting in self._waiting.items() if waiting.replaceable]:
                self._remove(droppable)
        return self._bytes <= self._limit

    def take(self) -> Frame:
        """The frame that waits longest. To be asked only while something waits."""
        return self._remove(next(iter(self._waiting))).frame

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._bytes = 0

    def _remove(self, slot: object) -> _Waiting:
        waiting = self._waiting.pop(slot, _Waiting("", replaceable=True))
        self._bytes -= len(waiting.frame)
        return waiting
