"""Cut a picture or latent into equal tiles, run something on each, and blend the results without seams.

The number of tiles along an axis is ceil(length / (tile - overlap)), so the number of model calls is proportional to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor

from ..errors import BadValueError
from ..runtime import SilentProgress, current_host


@dataclass(frozen=True)
class Tile:
    """A window in pixels (or latent pixels)."""

    top: int
    left: int
    height: int
    width: int


def plan_tiles(height: int, width: int, tile: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Windows of one equal size that cover height x width, row by row.

    A side up to `tile` has one window of its full length. A longer one has ceil(length / (tile - overlap)) windows of
    length `tile`, evenly spread, the first and last flush with the border: neighbours share at least `overlap`, and no
    last tile is smaller. `multiple`: every start and size is a multiple of it; height and width must be already.
    Raises BadValueError when the numbers do not fit.
    """
    rows = plan_axis(height, tile, overlap, multiple)
    columns = plan_axis(width, tile, overlap, multiple)
    return [Tile(top, left, min(tile, height), min(tile, width)) for top in rows for left in columns]


def plan_axis(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Starts of the windows along one side."""
    if any(value % multiple for value in (length, tile, overlap)):
        raise BadValueError(
            f"length {length}, tile {tile} and overlap {overlap} must be multiples of {multiple}.", way_out="Pad the picture first."
        )
    if length < 1 or overlap < 0 or tile <= overlap:
        raise BadValueError(f"tiles of {tile} with an overlap of {overlap} cannot cover {length}.", way_out="Choose overlap < tile.")
    if length <= tile:
        return [0]
    steps = ceil(length / (tile - overlap)) - 1
    return [multiple * ((index * (length - tile) // multiple) // steps) for index in range(steps + 1)]


def feather_weights(starts: Sequence[int], size: int) -> list[Tensor]:
    """Weights [size] of each window along one axis: linear ramps across what it shares with its neighbours, sum 1 everywhere.

    A side without neighbour has no ramp, so a single window has weight 1 exactly.
    """
    ramps = []
    for index, start in enumerate(starts):
        positions = torch.arange(size, dtype=torch.float64) + 0.5
        weight = torch.ones(size, dtype=torch.float64)
        if index > 0:
            weight = torch.minimum(weight, positions / (starts[index - 1] + size - start))
        if index + 1 < len(starts):
            weight = torch.minimum(weight, (size - positions) / (start + size - starts[index + 1]))
        ramps.append(weight)
    total = torch.zeros(starts[-1] + size, dtype=torch.float64)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + size] += ramp
    return [(ramp / total[start : start + size]).float() for start, ramp in zip(starts, ramps, strict=True)]


# What runs on tiles: the windows [T * B, C, h, w] of T tiles, one after the other, and where they lie.
OnTiles = Callable[[Tensor, Sequence[Tile]], Tensor]


def blend_tiles(run: OnTiles, picture: Tensor, plan: Sequence[Tile], scale: Fraction | int = 1, label: str | None = "Tiles") -> Tensor:
    """run(windows, tiles) on `picture` [B, C, H, W], blended with feathers into float32 [B, C', H * scale, W * scale].

    run may change the channels and scales both sides by `scale` (4 for a decoder, Fraction(1, 4) for an encoder); results lie
    on the picture's device. run gets as many tiles at a time as the host's micro-batch holds; the progress (none without a
    label) takes a step per tile and an interruption is noticed between calls. Memory beside run's own: the result and those
    tiles.
    """
    height, width = scaled(picture.shape[2], scale), scaled(picture.shape[3], scale)
    tops = sorted({scaled(tile.top, scale) for tile in plan})
    lefts = sorted({scaled(tile.left, scale) for tile in plan})
    tile_height, tile_width = scaled(plan[0].height, scale), scaled(plan[0].width, scale)
    rows = dict(zip(tops, feather_weights(tops, tile_height), strict=True))
    columns = dict(zip(lefts, feather_weights(lefts, tile_width), strict=True))
    host = current_host()
    progress = host.progress(len(plan), label) if label else SilentProgress(host.check_interrupted)
    blended: Tensor | None = None
    for tile, result in results_of(run, picture, plan):
        if result.shape[2:] != (tile_height, tile_width):
            raise BadValueError(f"a tile came back as {list(result.shape[2:])}, expected {[tile_height, tile_width]}.")
        if blended is None:
            blended = torch.zeros(*result.shape[:2], height, width, device=picture.device)
        top, left = scaled(tile.top, scale), scaled(tile.left, scale)
        weight = rows[top].to(result.device)[:, None] * columns[left].to(result.device)
        blended[:, :, top : top + tile_height, left : left + tile_width] += result * weight
        progress.advance()
    if blended is None:
        raise BadValueError("a plan without tiles.")
    return blended


def windows_of(planes: Tensor, tiles: Sequence[Tile], scale: Fraction | int = 1) -> Tensor:
    """[T * B, C, h, w]: what lies at T tiles of planes [B, C, H, W], whose sides are `scale` times those the tiles count in."""
    boxes = [[scaled(side, scale) for side in (tile.top, tile.left, tile.height, tile.width)] for tile in tiles]
    windows = [planes[:, :, top : top + height, left : left + width] for top, left, height, width in boxes]
    return torch.cat(windows) if len(windows) > 1 else windows[0]


def results_of(run: OnTiles, picture: Tensor, plan: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
    """Each tile with what run made of it, [B, C', h', w'] float32 on the picture's device, a micro-batch per call."""
    batch = picture.shape[0]
    together = max(1, current_host().micro_batch // batch)
    for first in range(0, len(plan), together):
        tiles = plan[first : first + together]
        results = run(windows_of(picture, tiles), tiles)
        yield from zip(tiles, results.to(picture.device, torch.float32).split(batch), strict=True)


def scaled(length: int, scale: Fraction | int) -> int:
    """length * scale; BadValueError when that is no whole number."""
    result = length * Fraction(scale)
    if result.denominator != 1:
        raise BadValueError(f"{length} pixels at scale {scale} are no whole number of pixels.", way_out="Pad the picture first.")
    return int(result)
