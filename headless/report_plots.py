"""Plots of a batch as PNG files, for a light page and for a dark one. Needs matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 40
SIZE_INCHES = (4.6, 2.1)
DOTS_PER_INCH = 240


@dataclass(frozen=True)
class Colours:
    """Of text, of thin lines, and of what is shown."""

    ink: str
    lines: str
    shown: str


LIGHT = Colours("#4a4a4a", "#d8d2c4", "#a8741a")
DARK = Colours("#b9b4a8", "#3a4049", "#d9a441")


@dataclass(frozen=True)
class Plot:
    """light, dark: PNG files with nothing behind."""

    light: bytes
    dark: bytes


def plot_in_order(values: Sequence[float], across: str, upward: str) -> Plot:
    """A dot for each value, in their order, from zero on."""

    def draw(axes: Axes, colours: Colours) -> None:
        size = 8 if len(values) < 500 else 3
        axes.plot(range(1, len(values) + 1), values, ".", color=colours.shown, markersize=size, markeredgewidth=0)
        axes.set_ylim(0, max(values) * 1.08 or 1)
        axes.set_xlim(0, len(values) + 1)
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=4)

    return _plot(draw, across, upward)


def plot_histogram(values: Sequence[float], across: str, upward: str) -> Plot:
    """How many values lie where."""
    bars = min(MOST_BARS, max(5, 2 * math.isqrt(len(values))))

    def draw(axes: Axes, colours: Colours) -> None:
        axes.hist(values, bins=bars, color=colours.shown, rwidth=0.92)
        axes.locator_params(axis="x", nbins=6)
        axes.locator_params(axis="y", nbins=4, integer=True)

    return _plot(draw, across, upward)


def _plot(draw: Callable[[Axes, Colours], None], across: str, upward: str) -> Plot:
    import matplotlib

    with matplotlib.rc_context():
        # Whatever a person's own matplotlibrc says about fonts and TeX.
        matplotlib.rcdefaults()
        return Plot(*(_png(draw, across, upward, colours) for colours in (LIGHT, DARK)))


def _png(draw: Callable[[Axes, Colours], None], across: str, upward: str, colours: Colours) -> bytes:
    # Without pyplot: it would choose a window system, and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    draw(axes, colours)
    axes.set_xlabel(across, color=colours.ink)
    axes.set_ylabel(upward, color=colours.ink)
    axes.tick_params(colors=colours.ink, which="both", length=0)
    axes.grid(axis="y", color=colours.lines, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colours.lines)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()
