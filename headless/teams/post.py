"""Where a worker works elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...core.errors import KintsugiError

# Makes worker number n, from 0, in the place where it will work; it goes there as a pickle.
Recruit = Callable[[int], Any]
Answer = tuple[Any, KintsugiError | None]


class Post:
    """Holds one worker, which is made at the first task, so that what it raises then is an answer too. Threads may share it."""

    def __init__(self, recruit: Recruit, number: int) -> None:
        self._recruit, self._number = recruit, number
        self._worker: Any = None
        self._making = threading.Lock()

    def answer(self, method: str, task: tuple[Any, ...]) -> Answer:
        """What the worker's method gives, or the error that a person is to read."""
        try:
            with self._making:
                if self._worker is None:
                    self._worker = self._recruit(self._number)
            return getattr(self._worker, method)(*task), None
        except KintsugiError as error:
            return None, error
