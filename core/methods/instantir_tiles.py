"""InstantIR above the size it was trained at: every prediction in tiles, blended before the step is taken.

All tiles are parts of one z_t, whose noise was drawn for the whole picture, so no pattern repeats and neighbours agree; the
image tokens that steer them come from the whole picture as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..imaging.tiling import Tile, blend_tiles
from .instantir_networks import Conditions, Denoised, InstantIR, Look, Steering, single_step


@dataclass(frozen=True)
class TiledInstantIR(InstantIR):
    """The same networks asked tile by tile. plan: windows in latent pixels, all of one size."""

    plan: Sequence[Tile] = ()

    def preview(self, z: Tensor, timestep: Tensor, conditions: Conditions) -> Look:
        """The Previewer's noise, blended, and the clean latent that follows."""

        def eps_of(windows: Tensor, tiles: Sequence[Tile]) -> Tensor:
            """What the Previewer sees in windows [T * R, C, h, w]."""
            many = len(tiles)
            return InstantIR.preview(self, windows, timestep.repeat(many), conditions.repeated(many)).eps

        eps = blend_tiles(eps_of, z, self.plan, label=None)
        return Look(eps, single_step(self.schedule, z, eps, timestep))

    def denoise(self, z: Tensor, timestep: Tensor, conditions: Conditions, steering: Steering | None, residuals: list[Tensor]) -> Denoised:
        """The U-Net's noise, blended; residuals of tiles are not kept, so none are told."""
        stacked = z if steering is None else torch.cat([z, steering.degraded, steering.reference], dim=1)

        def eps_of(windows: Tensor, tiles: Sequence[Tile]) -> Tensor:
            """What the U-Net sees in windows of z [T * R, C, h, w], or of z and what steers it [T * R, 3 C, h, w]."""
            many = len(tiles)
            local = None
            if steering:
                windows, degraded, reference = windows.chunk(3, dim=1)
                local = Steering(degraded, reference, steering.strength.repeat(many))
            return InstantIR.denoise(self, windows, timestep.repeat(many), conditions.repeated(many), local, []).eps

        return Denoised(blend_tiles(eps_of, stacked, self.plan, label=None), [])
