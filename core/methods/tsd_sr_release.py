"""TSD-SR as its authors' script runs it, for parity: its sizes, its window over tiled latents, its 8 bits.

What one_step.py does otherwise with the same networks: here nothing is padded (a latent that is not a whole number of patches
cannot be restored), sizes have a minimum and are cut to multiples of 8, only the velocity is tiled, under a Gaussian window, and
8-bit numbers are cut off, not rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..degradation.resampling import resize_pictures
from ..errors import BadValueError
from ..imaging.color_fix import adain_fix, wavelet_fix
from ..imaging.tiling import Tile, results_of
from ..models.codec import LatentCodec
from ..runtime import run_model
from .tsd_sr import TsdSr

ColorFix = Literal["wavelet", "adain", "nofix"]

SIZE_MULTIPLE = 8
# Variance of the Gaussian window, in units of the squared side of a tile.
WINDOW_VARIANCE = 0.01


@dataclass(frozen=True)
class ReleaseSettings:
    """The script's options. process_size: pixels that the networks see at least along the shorter side; a smaller source is
    enlarged more than `upscale` times, and its result reduced again. latent_tile, latent_overlap: latent pixels."""

    upscale: int = 4
    process_size: int = 512
    latent_tile: int = 64
    latent_overlap: int = 8
    color_fix: ColorFix = "wavelet"


def restore_as_released(method: TsdSr, codec: LatentCodec, source: Tensor, noise: Tensor, settings: ReleaseSettings) -> Tensor:
    """8-bit picture [upscale h, upscale w, 3] of an 8-bit source [h, w, 3].

    noise [1, C, H / 8, W / 8]: the posterior's draw, at the working_size() H, W.
    """
    height, width, resized = working_size(source.shape[0], source.shape[1], settings)
    latent = codec.encode(network_input(source, height, width), noise)
    restored = latent - tiled_velocity(method, latent, settings.latent_tile, settings.latent_overlap)
    picture = to_8_bit(codec.decode(restored))
    if resized:
        picture = pillow_resize(picture, *_final_size(source, settings))
    return corrected(picture, source, settings)


def working_size(height: int, width: int, settings: ReleaseSettings) -> tuple[int, int, bool]:
    """Height and width of what the networks see, and whether the result must be resized to upscale times the source."""
    smallest = settings.process_size // settings.upscale
    resized = min(height, width) < smallest
    if resized:
        factor = smallest / min(height, width)
        height, width = int(factor * height), int(factor * width)
    sides = [side * settings.upscale for side in (height, width)]
    cut = [side - side % SIZE_MULTIPLE for side in sides]
    return cut[0], cut[1], resized or cut != sides


def network_input(source: Tensor, height: int, width: int) -> Tensor:
    """Planes [1, 3, height, width] in 0..1 of an 8-bit source [h, w, 3], by one bicubic interpolation without low-pass filter."""
    return resize_pictures(_planes(source), height, width, "bicubic").clamp(0, 1)


@torch.inference_mode()
def tiled_velocity(method: TsdSr, latent: Tensor, tile: int, overlap: int) -> Tensor:
    """v [1, C, h, w] of a scaled latent: whole up to tile * tile latent pixels, else the mean of tiles weighted by the window."""
    height, width = latent.shape[-2:]
    if height * width <= tile * tile:
        return run_model(method.velocity, latent)
    size = min(tile, height, width)
    tops, lefts = (tile_starts(length, size, overlap) for length in (height, width))
    weights = window(size).float().to(latent.device)
    total, covered = torch.zeros_like(latent), torch.zeros_like(latent[:, :1])
    plan = [Tile(top, left, size, size) for top in tops for left in lefts]
    for place, velocity in results_of(lambda windows, _: run_model(method.velocity, windows), latent, plan):
        area = ..., slice(place.top, place.top + size), slice(place.left, place.left + size)
        total[area] += velocity * weights
        covered[area] += weights
    return total / covered


def tile_starts(length: int, tile: int, overlap: int) -> Sequence[int]:
    """Where tiles start along a side: every tile - overlap, the last one moved back to end with the side. Raises BadValueError
    for an overlap that leaves no step."""
    stride = tile - overlap
    if stride < 1:
        raise BadValueError(f"tiles of {tile} cannot overlap by {overlap} latent pixels.", way_out="Choose overlap < tile.")
    count = max(1, ceil((length - tile) / stride) + 1)
    return [min(index * stride, length - tile) for index in range(count)]


def window(tile: int) -> Tensor:
    """Gaussian weights [tile, tile] float64. The script centres rows at tile / 2 and columns at (tile - 1) / 2."""
    rows, columns = (_gaussian(tile, centre) for centre in (tile / 2, (tile - 1) / 2))
    return rows[:, None] * columns


def _gaussian(tile: int, centre: float) -> Tensor:
    distance = torch.arange(tile, dtype=torch.float64) - centre
    return torch.exp(-(distance**2) / (tile**2 * 2 * WINDOW_VARIANCE)) / (2 * torch.pi * WINDOW_VARIANCE) ** 0.5


def corrected(picture: Tensor, source: Tensor, settings: ReleaseSettings) -> Tensor:
    """The 8-bit picture [H, W, 3] with the colours of the source: `adain` takes the statistics of the small one."""
    if settings.color_fix == "nofix":
        return picture
    if settings.color_fix == "adain":
        return to_8_bit(adain_fix(_planes(picture), _planes(source)))
    style = pillow_resize(source, *_final_size(source, settings))
    return to_8_bit(wavelet_fix(_planes(picture), _planes(style)))


def to_8_bit(planes: Tensor) -> Tensor:
    """8-bit picture [H, W, 3] of planes [1, 3, H, W] in 0..1, cut off: half a grey level darker than rounding."""
    return (planes[0].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).cpu()


def pillow_resize(picture: Tensor, height: int, width: int) -> Tensor:
    """8-bit picture [height, width, 3] by Pillow's bicubic, which rounds between its two passes as no float resize does."""
    image = Image.fromarray(picture.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


def _final_size(source: Tensor, settings: ReleaseSettings) -> tuple[int, int]:
    return source.shape[0] * settings.upscale, source.shape[1] * settings.upscale


def _planes(picture: Tensor) -> Tensor:
    """[1, 3, H, W] in 0..1 of an 8-bit picture [H, W, 3]."""
    return picture.permute(2, 0, 1)[None].float() / 255
