"""The tiled VAE that TSD-SR was published with (multidiffusion's "tiled VAE"), for parity: an approximation.

All tiles pass a layer before any enters the next one. GroupNorm statistics are averaged over the tiles, which leaves the
variance between tiles out; attention sees its own tile only; results are cut, not blended. Batch 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime import run_model
from .vae_layers import (
    Coder,
    Convolution,
    SelfAttention,
    Statistics,
    apply_convolution,
    attend,
    decoder_of,
    encoder_of,
    normalise,
    run_layers,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

ENCODER_PADDING = 32
DECODER_PADDING = 11
# A tile's side becomes a multiple of the largest of these that the tile allows.
DIVISORS = (32, 16, 8, 4, 2)


@dataclass(frozen=True)
class Box:
    """x1 <= x < x2 and y1 <= y < y2; astuple() gives them in the order of the published code."""

    x1: int
    x2: int
    y1: int
    y2: int

    def of(self, planes: Tensor) -> Tensor:
        """What lies in it, of planes [B, C, H, W]: a view."""
        return planes[:, :, self.y1 : self.y2, self.x1 : self.x2]

    def scaled(self, up: int, down: int) -> Box:
        """The same box where a side is up / down as long, rounded down."""
        return Box(*(side * up // down for side in (self.x1, self.x2, self.y1, self.y2)))

    def relative_to(self, other: Box) -> Box:
        """The same box counted from the corner of another one."""
        return Box(self.x1 - other.x1, self.x2 - other.x1, self.y1 - other.y1, self.y2 - other.y1)


@dataclass(frozen=True)
class TilePlan:
    """What every tile sees, in the network's input, and where its result goes, in the network's output; row by row."""

    in_boxes: list[Box]
    out_boxes: list[Box]


def plan_encode(height: int, width: int, tile: int, downscale: int = 8) -> TilePlan:
    """Tiles of `tile` pixels for a picture of height x width pixels; out_boxes in latent pixels."""
    return _plan(height, width, tile, ENCODER_PADDING, 1, downscale)


def plan_decode(height: int, width: int, tile: int, downscale: int = 8) -> TilePlan:
    """Tiles of `tile` latent pixels for a latent of height x width; out_boxes in pixels."""
    return _plan(height, width, tile, DECODER_PADDING, downscale, 1)


@torch.inference_mode()
def encode_published(vae: AutoencoderKL, pixels: Tensor, tile: int = 1024) -> Tensor:
    """Moments [1, 2C, h, w] float32 (mean and log-variance, not scaled) of pixels [1, 3, H, W] in -1..1. tile: pixels."""
    height, width = pixels.shape[-2:]
    plan = plan_encode(height, width, tile, _downscale(vae))
    return _run_tiles(encoder_of(vae), pixels, plan)


@torch.inference_mode()
def decode_published(vae: AutoencoderKL, latent: Tensor, tile: int = 224) -> Tensor:
    """Pixels [1, 3, H, W] float32 in about -1..1 (not clamped) of a latent [1, C, h, w], already divided by the scaling
    factor. tile: latent pixels."""
    height, width = latent.shape[-2:]
    plan = plan_decode(height, width, tile, _downscale(vae))
    return _run_tiles(decoder_of(vae), latent, plan)


def _run_tiles(coder: Coder, planes: Tensor, plan: TilePlan) -> Tensor:
    tiles = run_layers(coder.layers, [box.of(planes) for box in plan.in_boxes], _SynchronisedTiles())
    height, width = (max(getattr(box, side) for box in plan.out_boxes) for side in ("y2", "x2"))
    result = torch.zeros(1, tiles[0].shape[1], height, width, device=planes.device)
    for tile, seen, target in zip(tiles, plan.in_boxes, plan.out_boxes, strict=True):
        corner = seen.scaled(height, planes.shape[-2])
        target.of(result).copy_(target.relative_to(corner).of(tile))
    return result


class _SynchronisedTiles:
    """Steps for one tensor [1, C, h, w] per tile."""

    def convolve(
        self, x: list[Tensor], layer: Convolution, added: list[Tensor] | None = None, shortcut: nn.Conv2d | None = None
    ) -> list[Tensor]:
        """The convolution of every tile, its zero padding at the tile's own sides, normed together with the others."""
        active = x if layer.norm is None else [F.silu(tile) for tile in _normalise_together(x, layer.norm)]
        convolved = [run_model(apply_convolution, tile, layer=layer) for tile in active]
        if added is None:
            return convolved
        kept = added if shortcut is None else [run_model(shortcut, tile) for tile in added]
        return [one + other for one, other in zip(kept, convolved, strict=True)]

    def attend(self, x: list[Tensor], layer: SelfAttention) -> list[Tensor]:
        """Every tile attends to itself alone."""
        results = []
        for tile, normalised in zip(x, _normalise_together(x, layer.norm), strict=True):
            tokens = normalised.flatten(2).transpose(1, 2)
            found = run_model(lambda own: attend(layer.attention, own, own), tokens)
            results.append(tile + found.transpose(1, 2).unflatten(2, tile.shape[-2:]))
        return results


def _normalise_together(tiles: list[Tensor], norm: nn.GroupNorm) -> list[Tensor]:
    """Mean and variance of every tile, averaged by the tiles' pixels: mean = sum p mean_j, variance = sum p variance_j."""
    pixels = torch.tensor([tile.shape[-2] * tile.shape[-1] for tile in tiles], dtype=torch.float64)
    shares = (pixels / pixels.sum())[:, None]
    every = [Statistics.of(tile, norm.num_groups) for tile in tiles]
    mean = (torch.stack([statistics.mean for statistics in every]) * shares).sum(0)
    variance = (torch.stack([statistics.variance for statistics in every]) * shares).sum(0)
    return [normalise(tile, norm, Statistics(mean, variance)) for tile in tiles]


def _plan(height: int, width: int, tile: int, padding: int, up: int, down: int) -> TilePlan:
    if max(height, width) <= 2 * padding + tile:
        whole = Box(0, width, 0, height)
        return TilePlan([whole], [whole.scaled(up, down)])
    rows, columns = (_plan_axis(length, tile, padding) for length in (height, width))
    seen = [Box(*x_seen, *y_seen) for y_seen, _ in rows for x_seen, _ in columns]
    kept = [Box(*x_kept, *y_kept).scaled(up, down) for _, y_kept in rows for _, x_kept in columns]
    return TilePlan(seen, kept)


def _plan_axis(length: int, tile: int, padding: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end of what each tile sees and of what is kept of it, along one side."""
    inner = length - 2 * padding
    count = max(1, ceil(inner / tile))
    size = _best_size(ceil(inner / count), tile)
    axis = []
    for index in range(count):
        start, end = padding + index * size, min(padding + (index + 1) * size, length)
        seen = max(0, start - padding), min(length, end + padding)
        kept = 0 if start == padding else start, length if end >= length - padding else end
        axis.append((seen, kept))
    return axis


def _best_size(size: int, largest: int) -> int:
    """size rounded up to a multiple of the first divisor with which it stays within `largest`."""
    for divisor in DIVISORS:
        rounded = ceil(size / divisor) * divisor
        if rounded == size or rounded <= largest:
            return rounded
    return size


def _downscale(vae: AutoencoderKL) -> int:
    return int(2 ** (len(vae.config.block_out_channels) - 1))
