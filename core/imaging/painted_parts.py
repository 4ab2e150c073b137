"""Where a mask is painted: one box around all of it, or one around each part that stands alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

PAINTED = 0.05
"""Fainter values are the noise of compressed masks."""
_GRID = 128


@dataclass(frozen=True)
class Box:
    """Rows top..bottom and columns left..right of a picture, in pixels, the ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def padded(self, share: float, height: int, width: int) -> Box:
        """Grown on all sides by a share of its longer side, as far as a picture of that size reaches."""
        by = round(share * max(self.height, self.width))
        return Box(max(0, self.top - by), max(0, self.left - by), min(height, self.bottom + by), min(width, self.right + by))

    def meets(self, other: Box) -> bool:
        """Whether the two overlap or touch."""
        rows = self.top <= other.bottom and other.top <= self.bottom
        return rows and self.left <= other.right and other.left <= self.right

    def with_box(self, other: Box) -> Box:
        """The smallest box around both."""
        ends = max(self.bottom, other.bottom), max(self.right, other.right)
        return Box(min(self.top, other.top), min(self.left, other.left), *ends)


def box_of(painted: Tensor) -> Box | None:
    """The smallest box around what is true in painted [H, W]; None where nothing is."""
    rows, columns = (painted.any(axis).nonzero() for axis in (1, 0))
    if not len(rows):
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def painted_boxes(mask: Tensor, padding: float, separate: bool) -> list[Box]:
    """The padded boxes of what is painted in mask [H, W], in reading order; none where nothing is.

    separate: one for each part; parts whose padded boxes meet, or nearly, count as one. Otherwise one around everything.
    """
    painted = mask > PAINTED
    whole = box_of(painted)
    if whole is None:
        return []
    height, width = painted.shape
    boxes = _parts(painted, padding) if separate else [whole]
    return [box.padded(padding, height, width) for box in boxes]


def _parts(painted: Tensor, padding: float) -> list[Box]:
    """Found on a coarse grid, so that a speckled mask costs no more than a clean one."""
    cell = -(-max(painted.shape) // _GRID)
    cells = F.max_pool2d(painted[None].float(), cell, ceil_mode=True)[0] > 0
    found = []
    for part in _merged(_connected(cells), padding, *cells.shape):
        top, left = part.top * cell, part.left * cell
        box = box_of(painted[top : part.bottom * cell, left : part.right * cell])
        if box is not None:
            found.append(Box(top + box.top, left + box.left, top + box.bottom, left + box.right))
    return sorted(found, key=lambda box: (box.top, box.left))


def _connected(cells: Tensor) -> list[Box]:
    """The boxes of the cells [h, w] that hang together by sides or corners."""
    left = {(int(row), int(column)) for row, column in cells.nonzero()}
    boxes = []
    while left:
        waiting = [left.pop()]
        members = []
        while waiting:
            row, column = waiting.pop()
            members.append((row, column))
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            waiting += near
        rows, columns = zip(*members, strict=True)
        boxes.append(Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1))
    return boxes


def _merged(boxes: list[Box], padding: float, height: int, width: int) -> list[Box]:
    """The boxes, each joined with those that its padded box meets."""
    settled: list[Box] = []
    waiting = list(boxes)
    while waiting:
        box = waiting.pop()
        padded = box.padded(padding, height, width)
        met = next((other for other in settled if padded.meets(other.padded(padding, height, width))), None)
        if met is None:
            settled.append(box)
        else:
            settled.remove(met)
            waiting.append(box.with_box(met))
    return settled
