"""A worker that squares numbers, and what goes wrong with workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kintsugi.core.errors import BadValueError


class Squarer:
    def __init__(self, number: int) -> None:
        self.number = number

    def who(self) -> int:
        return self.number

    def process(self) -> int:
        return os.getpid()

    def square(self, value: int) -> int:
        # The first ones take longest.
        time.sleep(0.2 if value < 2 else 0)
        return value * value

    def refuse(self, value: int) -> int:
        raise BadValueError(f"{value} has no square.", where=f"worker {self.number}", way_out="Take another.")

    def vanish(self) -> None:
        os._exit(7)

    def square_or_vanish(self, value: int, when: str) -> int:
        """Vanishes `always`, or where no file of that name says that it has done so already."""
        if when == "always" or (when and not Path(when).exists()):
            if when != "always":
                Path(when).touch()
            self.vanish()
        return self.square(value)

    def sleep(self) -> None:
        time.sleep(600)


class Absent:
    def __init__(self, number: int) -> None:
        raise BadValueError(f"no place for worker {number}.")
