"""A VAE in tiles whose memory does not grow with the picture: what is global comes from a small version of it.

The small version passes the network once; its GroupNorm statistics and its tokens at the attention are kept. Then every tile
passes the whole network on its own, normalised by those statistics and attending to those tokens. Around a tile lies all that
its convolutions can see, so that neighbours agree at their border and there is no seam to hide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..imaging.padding import plan_windows
from ..imaging.tiling import Tile, blend_tiles, scaled, windows_of
from ..runtime import current_host, run_model
from .vae_layers import Coder, Convolution, Residual, SelfAttention, Statistics, apply_convolution, attend, normalise, run_layers


@torch.no_grad()
def run_streamed(coder: Coder, planes: Tensor, tile: int, label: str) -> Tensor:
    """The coder's result float32 [B, C', H', W'] of planes [B, C, H, W], on their device, picture by picture.

    tile: pixels of the picture that each network call makes along a side; it sees reach_of() more on either side. Colours and
    contrast are those of the whole picture as far as its small version shares its statistics. Memory beside planes and
    result: that of the network on a micro-batch of such windows.
    """
    return torch.cat([_run_picture(coder, picture, tile, label) for picture in planes.split(1)])


def reach_of(coder: Coder) -> int:
    """How far, in sides of its input, the convolutions of a coder see beyond a tile: rounded up to what gives whole results."""
    reach, step = Fraction(0), Fraction(1)
    for convolution in _convolutions(coder):
        reach += max(convolution.reach) * (step / 2 if convolution.upsamples else step)
        step /= convolution.scale
    return _multiple(coder) * ceil(reach / _multiple(coder))


def _convolutions(coder: Coder) -> Iterator[Convolution]:
    for layer in coder.layers:
        if isinstance(layer, Convolution):
            yield layer
        elif isinstance(layer, Residual):
            yield from (layer.first, layer.second)


def _multiple(coder: Coder) -> int:
    return ceil(1 / coder.scale)


def _run_picture(coder: Coder, picture: Tensor, tile: int, label: str) -> Tensor:
    """picture [1, C, H, W]; sides are counted in its pixels, which are latent pixels for a decoder."""
    side, reach, device = int(tile / max(coder.scale, Fraction(1))), reach_of(coder), current_host().device
    steps = _GlobalSteps()

    def network(windows: Tensor) -> Tensor:
        return run_layers(coder.layers, windows, steps)

    def run(_: Tensor, tiles: Sequence[Tile]) -> Tensor:
        seen = [_seen(tile, reach, picture) for tile in tiles]
        results = run_model(network, windows_of(picture, seen).to(device, coder.dtype))
        return torch.cat([_made(result, tile, window, coder.scale) for result, tile, window in zip(results, tiles, seen, strict=True)])

    run_model(network, _small_version(coder, picture, side + 2 * reach).to(device, coder.dtype))
    return blend_tiles(run, picture, plan_windows(picture, side, 0, _multiple(coder)), coder.scale, label)


def _small_version(coder: Coder, picture: Tensor, side: int) -> Tensor:
    """The picture with at most the area of side x side. Pixels are averaged, as a small photo looks like a large one; the pixels of
    latents, which have no such likeness, are picked, because their average would have too little spread."""
    multiple = _multiple(coder)
    factor = max(1.0, (picture.shape[-2] * picture.shape[-1]) ** 0.5 / side)
    height, width = (multiple * max(1, int(length / factor / multiple)) for length in picture.shape[-2:])
    return F.interpolate(picture, (height, width), mode="area" if coder.scale < 1 else "nearest-exact")


def _seen(tile: Tile, reach: int, picture: Tensor) -> Tile:
    """The tile with its surroundings, moved inwards at the picture's borders: all windows have one size."""
    height, width = (min(side + 2 * reach, length) for side, length in zip((tile.height, tile.width), picture.shape[-2:], strict=True))
    top = min(max(tile.top - reach, 0), picture.shape[-2] - height)
    left = min(max(tile.left - reach, 0), picture.shape[-1] - width)
    return Tile(top, left, height, width)


def _made(result: Tensor, tile: Tile, seen: Tile, scale: Fraction) -> Tensor:
    """The tile's part [1, C, h, w] of a result [C, H, W] for what it saw."""
    top, left = scaled(tile.top - seen.top, scale), scaled(tile.left - seen.left, scale)
    return result[None, :, top : top + scaled(tile.height, scale), left : left + scaled(tile.width, scale)]


class _GlobalSteps:
    """Steps for tensors [B, C, h, w]: the first one passes as it is, all later ones with its statistics and its tokens."""

    def __init__(self) -> None:
        self._statistics: dict[nn.GroupNorm, Statistics] = {}
        self._tokens: dict[SelfAttention, Tensor] = {}

    def convolve(self, x: Tensor, layer: Convolution, added: Tensor | None = None, shortcut: nn.Conv2d | None = None) -> Tensor:
        active = x if layer.norm is None else F.silu(self._normalised(x, layer.norm), inplace=True)
        convolved = apply_convolution(active, layer)
        if added is None:
            return convolved
        return (added if shortcut is None else shortcut(added)) + convolved

    def attend(self, x: Tensor, layer: SelfAttention) -> Tensor:
        tokens = self._normalised(x, layer.norm).flatten(2).transpose(1, 2)
        found = attend(layer.attention, tokens, self._tokens.setdefault(layer, tokens[:1]))
        return x + found.transpose(1, 2).unflatten(2, x.shape[-2:])

    def _normalised(self, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        if norm not in self._statistics:
            self._statistics[norm] = Statistics.of(x[:1], norm.num_groups)
        return normalise(x, norm, self._statistics[norm])
