"""From a degraded picture to a restored one, for every method that needs a single network call.

Enlarge, pad, then per tile: encode, one step, decode; blend, crop, correct the colour once over the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import BadValueError, OutOfMemoryError
from ..imaging.color_fix import Method, fix_colors
from ..imaging.padding import crop_around, pad_around, pad_to_multiple, plan_windows
from ..imaging.resize import resize
from ..imaging.tiling import blend_tiles
from ..models.prior import Prior
from ..randomness import picture_generators
from ..runtime import available_ram, current_host, require_finite, with_smaller_tiles

SMALLEST_TILE = 64
# Float32 pictures of the result's size that live at once: enlarged, blended, weights, corrected, plus one of headroom.
LIVE_PICTURES = 5


class OneStepMethod(Protocol):
    """What a paper's method adds: one call on a scaled latent."""

    @property
    def latent_multiple(self) -> int:
        """Sides of a latent must be multiples of this."""

    def restore_latent(self, latent: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Scaled latent [B, C, h, w] float32 of the restored picture, noise drawn from each picture's generator."""


@dataclass(frozen=True)
class Generator:
    """A one-step restorer with the prior its latents belong to: the GENERATOR socket.

    border: pixels of reflection around every window, cropped again, for networks whose zero padding shows at edges.
    """

    name: str
    method: OneStepMethod
    prior: Prior
    border: int = 0

    @property
    def multiple(self) -> int:
        """Sides of what goes through the networks must be multiples of this, in pixels."""
        return self.method.latent_multiple * self.prior.codec.downscale


@dataclass(frozen=True)
class Tiling:
    """tile: pixels that each network call restores along a side; overlap: pixels it also sees and that are blended."""

    tile: int = 512
    overlap: int = 64


def restore(generator: Generator, pictures: Tensor, scale: float, seed: int, tiling: Tiling, color_fix: Method = "none") -> Tensor:
    """Restored pictures [B, round(scale H), round(scale W), 3] in 0..1 of pictures [B, H, W, 3] in 0..1.

    seed: picture i uses seed + i. Raises BadValueError for empty or non-finite input, OutOfMemoryError before any work
    when the result would not fit the machine's memory.
    """
    require_finite(pictures, "The picture")
    _require_memory(pictures.shape, scale)
    generators = picture_generators(seed, pictures.shape[0])
    restored = [
        _restore_one(generator, picture, scale, noise, tiling, color_fix)
        for picture, noise in zip(pictures.split(1), generators, strict=True)
    ]
    return torch.cat(restored)


def _restore_one(generator: Generator, picture: Tensor, scale: float, noise: torch.Generator, tiling: Tiling, color_fix: Method) -> Tensor:
    planes = picture.permute(0, 3, 1, 2)
    height, width = (max(1, round(side * scale)) for side in planes.shape[-2:])
    enlarged = planes if (height, width) == planes.shape[-2:] else resize(planes, height, width, "bicubic").clamp(0, 1)
    restored = with_smaller_tiles(lambda tile: _restore_tiled(generator, enlarged, noise, tile, tiling.overlap), tiling.tile, SMALLEST_TILE)
    require_finite(restored, "The restored picture")
    return fix_colors(restored, enlarged, color_fix).clamp_(0, 1).permute(0, 2, 3, 1)


def _restore_tiled(generator: Generator, enlarged: Tensor, noise: torch.Generator, tile: int, overlap: int) -> Tensor:
    """Restored planes [1, 3, H, W], on the enlarged picture's device."""
    height, width = enlarged.shape[-2:]
    padded = pad_to_multiple(enlarged, generator.multiple)
    codec, device = generator.prior.codec, current_host().device

    def restore_window(window: Tensor) -> Tensor:
        framed = pad_around(window.to(device), generator.border)
        restored = codec.decode(generator.method.restore_latent(codec.encode(framed), [noise] * framed.shape[0]))
        return crop_around(restored, generator.border)

    plan = plan_windows(padded, tile, overlap, generator.multiple)
    return blend_tiles(restore_window, padded, plan, label="Restoring")[..., :height, :width]


def restore_latent(generator: Generator, latent: Tensor, seed: int) -> Tensor:
    """One step on a whole scaled latent [B, C, h, w], padded to what the network needs and cropped again."""
    if latent.ndim != 4 or latent.shape[1] != generator.prior.codec.channels:
        raise BadValueError(
            f"the latent is {list(latent.shape)}, expected [batch, {generator.prior.codec.channels}, height, width].",
            where=generator.name, way_out="Encode the picture with the prior that belongs to this generator.",
        )  # fmt: skip
    height, width = latent.shape[-2:]
    device = current_host().device
    padded = pad_to_multiple(latent, generator.method.latent_multiple).to(device)
    restored = generator.method.restore_latent(padded, picture_generators(seed, latent.shape[0]))
    return restored[..., :height, :width].to(latent.device)


def _require_memory(shape: torch.Size, scale: float) -> None:
    batch, height, width, channels = shape
    if height == 0 or width == 0 or batch == 0:
        raise BadValueError(f"the picture is {width} x {height} pixels.", way_out="Check the node that made it.")
    needed = batch * height * scale * width * scale * channels * 4 * LIVE_PICTURES
    available = available_ram()
    if needed > available:
        fitting = scale * (available / needed) ** 0.5
        raise OutOfMemoryError(
            f"{width} x {height} pixels at scale {scale:g} need about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free.",
            way_out=f"Choose a scale of at most {int(fitting * 100) / 100:g} ({int(width * fitting)} x {int(height * fitting)} pixels).",
        )  # fmt: skip
