"""When something counts during a run of steps: windows as fractions of it, as people set them."""

from __future__ import annotations

from ..errors import BadValueError


def is_open(index: int, steps: int, opens: float, closes: float) -> bool:
    """Whether step `index` of so many lies whole between the fractions opens and closes."""
    return index / steps >= opens and (index + 1) / steps <= closes


def require_window(opens: float, closes: float, opening: str, closing: str) -> None:
    """Raise BadValueError for a window that closes before it opens, or leaves the run; its ends are called opening and closing."""
    if not 0 <= opens <= closes <= 1:
        raise BadValueError(
            f"the window opens at {opens} and closes at {closes}.",
            where=f"{opening}, {closing}",
            way_out=f"Choose both from 0 to 1, and let {closing} be the larger one; equal ones mean no window at all.",
        )
