"""The coarse restoration that InstaRevive starts from: SwinIR takes the worst damage away, tile by tile where a picture is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..imaging.padding import pad_around, pad_to_multiple, plan_windows
from ..imaging.tiling import Tile, blend_tiles
from ..models.swinir import SwinIR
from ..runtime import current_host, require_finite, run_model, with_smaller_tiles

OVERLAP = 64
SMALLEST_TILE = 64


@dataclass(frozen=True)
class PreRestorer:
    """border: pixels of reflection around the picture, cropped again, for networks whose zero padding shows at its edges."""

    network: SwinIR
    border: int = 0


@torch.inference_mode()
def pre_restore(restorer: PreRestorer, pictures: Tensor, tile: int) -> Tensor:
    """Coarse restorations [B, H, W, 3] of pictures [B, H, W, 3], both in 0..1.

    tile: pixels that each call restores along a side. The result is clamped, as pictures of a graph are; the release passes
    values beyond 0..1 on, and pads by black where reflection stands here. Raises BadValueError for what is not finite.
    """
    require_finite(pictures, "The picture")
    network, border = restorer.network, restorer.border
    height, width = pictures.shape[1:3]
    multiple = network.config.multiple
    padded = pad_to_multiple(pad_around(pictures.permute(0, 3, 1, 2), border), multiple)
    parameter = next(network.parameters())

    def restore(windows: Tensor, _: Sequence[Tile]) -> Tensor:
        return run_model(network, windows.to(current_host().device, parameter.dtype)).float()

    def run(size: int) -> Tensor:
        return blend_tiles(restore, padded, plan_windows(padded, size, OVERLAP, multiple), label="Pre-restoring")

    restored = with_smaller_tiles(run, tile, SMALLEST_TILE)[..., border : border + height, border : border + width]
    require_finite(restored, "The coarse restoration")
    return restored.clamp_(0, 1).permute(0, 2, 3, 1)
