"""The border to node classes: whatever their code raises crosses it as one exception that says it came from there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import Interrupted


class NodeCodeError(Exception):
    """A node's own code failed; `error` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def call(function: Callable[..., Any], /, *args: Any, **inputs: Any) -> Any:
    """function(*args, **inputs) of a node class; Interrupted passes, every other exception becomes NodeCodeError."""
    try:
        return function(*args, **inputs)
    except Interrupted:
        raise
    except Exception as error:
        raise NodeCodeError(error) from error


async def call_async(function: Callable[..., Any], /, **inputs: Any) -> Any:
    """As `call`, and the result is awaited when the function is a coroutine function."""
    try:
        result = function(**inputs)
        return await result if inspect.isawaitable(result) else result
    except Interrupted:
        raise
    except Exception as error:
        raise NodeCodeError(error) from error
