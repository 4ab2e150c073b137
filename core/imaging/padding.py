"""Grow pictures and latents to the multiples that networks need, and cut them into windows that count exactly."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .tiling import Tile, plan_tiles


def pad_to_multiple(planes: Tensor, multiple: int) -> Tensor:
    """planes [B, C, H, W] grown to the right and below to multiples, by reflection; a side too short for that is repeated."""
    height, width = planes.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(planes, (0, right, 0, bottom), mode) if bottom or right else planes


def plan_windows(padded: Tensor, tile: int, overlap: int, multiple: int) -> list[Tile]:
    """Windows of tile + overlap pixels, one per `tile` pixels of each side: their count is proportional to the area.

    padded: [B, C, H, W], sides in multiples already. tile and overlap are rounded to multiples (tile at least one).
    """
    tile, overlap = multiple * max(1, round(tile / multiple)), multiple * round(overlap / multiple)
    return plan_tiles(padded.shape[-2], padded.shape[-1], tile + overlap, overlap, multiple)
