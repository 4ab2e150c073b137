"""How fast work goes on now, and how long the rest takes at that pace."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 60.0
LEAST_MARKS = 8
SECONDS_BETWEEN_MARKS = 0.5
LEAST_SECONDS = 1.0
# More than the workers of one machine finish at once: their results come in clumps, which are no change of pace.
BREAK_OF_PACE = 50.0
SHORTEST_BREAK = 0.02  # seconds a step; work quicker than that comes in bursts anyway

_TIMES = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


class Pace:
    """Steps per second over the recent past: the last minute, or the last eight advances where those reach farther back.

    Steps that took no time, as pictures kept from an earlier run, are forgotten with the first one that takes time again: what
    they say about the rest is wrong. Times are those of one clock that never jumps (time.monotonic).
    """

    def __init__(self, now: float) -> None:
        # (time, steps done by then); the last mark is that of the latest advance.
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])

    def advance(self, now: float, steps: int) -> None:
        """So many steps more are done now."""
        latest, done = self._marks[-1]
        if self._breaks_pace((now - latest) / max(steps, 1)):
            self._marks = deque([(latest, done)])
        if len(self._marks) > 1 and now - self._marks[-2][0] < SECONDS_BETWEEN_MARKS:
            self._marks.pop()
        self._marks.append((now, done + steps))
        while len(self._marks) > LEAST_MARKS + 1 and self._marks[1][0] <= now - WINDOW_SECONDS:
            self._marks.popleft()

    def _breaks_pace(self, seconds: float) -> bool:
        """Whether a step of so many seconds belongs to other work than the steps before it."""
        (first, before), (latest, done) = self._marks[0], self._marks[-1]
        return seconds >= SHORTEST_BREAK and seconds * (done - before) > BREAK_OF_PACE * (latest - first)

    def per_second(self) -> float | None:
        """None where there is nothing to judge by yet."""
        (first, before), (latest, done) = self._marks[0], self._marks[-1]
        return (done - before) / (latest - first) if done > before and latest - first >= LEAST_SECONDS else None

    def words(self, left: int) -> str:
        """`0.8/s, 13 h 52 min left`, or an empty text where there is nothing to judge by yet."""
        rate = self.per_second()
        if rate is None:
            return ""
        return f"{human_rate(rate)}, {human_time(left / rate)} left" if left > 0 else human_rate(rate)


def human_rate(per_second: float) -> str:
    """Per second, minute or hour, whichever reads well: 12.3/s, 24.0/min, 5.0/h."""
    units = (("s", 1), ("min", 60), ("h", 3600))
    unit, seconds = next((unit for unit in units if per_second * unit[1] >= 0.5), units[-1])
    return f"{per_second * seconds:.1f}/{unit}"


def human_time(seconds: float) -> str:
    """In its two largest units: 3 d 4 h, 13 h 52 min, 5 min 20 s, 8 s."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in _TIMES:
        count, rest = divmod(rest, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
