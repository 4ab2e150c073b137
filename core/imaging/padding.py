"""Grow pictures and latents to the multiples that networks need, and cut them into windows that count exactly."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .tiling import Tile, plan_tiles


def pad_to_multiple(planes: Tensor, multiple: int) -> Tensor:
    """planes [B, C, H, W] grown to the right and below to multiples, by reflection; a side too short for that is repeated."""
    height, width = planes.shape[-2:]
    return _mirrored(planes, (0, -width % multiple, 0, -height % multiple))


def pad_around(planes: Tensor, border: int) -> Tensor:
    """planes [B, C, H, W] with `border` pixels of reflection on every side."""
    return _mirrored(planes, (border, border, border, border))


def crop_around(planes: Tensor, border: int) -> Tensor:
    """What pad_around() added, cut off again."""
    return planes[..., border : planes.shape[-2] - border, border : planes.shape[-1] - border]


def _mirrored(planes: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """sides: left, right, top, bottom. A picture too small to be reflected that far repeats its edge."""
    if not any(sides):
        return planes
    mode = "reflect" if max(sides[:2]) < planes.shape[-1] and max(sides[2:]) < planes.shape[-2] else "replicate"
    return F.pad(planes, sides, mode)


def plan_windows(padded: Tensor, tile: int, overlap: int, multiple: int) -> list[Tile]:
    """Windows of tile + overlap pixels, one per `tile` pixels of each side: their count is proportional to the area.

    padded: [B, C, H, W], sides in multiples already. tile and overlap are rounded to multiples (tile at least one).
    """
    tile, overlap = multiple * max(1, round(tile / multiple)), multiple * round(overlap / multiple)
    return plan_tiles(padded.shape[-2], padded.shape[-1], tile + overlap, overlap, multiple)
