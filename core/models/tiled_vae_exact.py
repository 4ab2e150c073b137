"""A VAE in tiles with the result of the whole picture, up to rounding: layer by layer, activations kept on the host.

Every layer reads its tiles, with the rows around them that its convolution needs, from an activation in the machine's memory
and writes them to the next one, while the mean and variance of each channel are put together for the GroupNorm that follows.
Attention goes over all positions, a block of queries and a block of keys at a time. The device holds tiles only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..imaging.tiling import Tile
from ..runtime import Progress, current_host, run_model
from .blockwise_attention import attend_in_blocks, block_size
from .vae_layers import Coder, Convolution, SelfAttention, Statistics, normalise, run_layers

SMALLEST_SIDE = 8


class ChannelMoments:
    """Mean and variance of every channel, put together from tiles in float64 (Chan, Golub and LeVeque's update)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """values [C, h, w], which were not among those before."""
        variance, mean = (moment.cpu().double() for moment in torch.var_mean(values.float(), dim=(1, 2), correction=0))
        count = values[0].numel()
        total = self.count + count
        difference = mean - self.mean
        self.mean += difference * (count / total)
        self.squares += variance * count + difference.square() * (self.count * count / total)
        self.count = total

    def of_groups(self, groups: int) -> Statistics:
        """What a GroupNorm over everything added would use: the variance between channels and between tiles is in it."""
        means, variances = self.mean.unflatten(0, (groups, -1)), (self.squares / self.count).unflatten(0, (groups, -1))
        mean = means.mean(1)
        return Statistics(mean, variances.mean(1) + (means - mean[:, None]).square().mean(1))


@dataclass
class Kept:
    """An activation [C, H, W] on the host: the first C channels of its storage."""

    storage: Tensor
    channels: int
    moments: ChannelMoments = field(init=False)

    def __post_init__(self) -> None:
        self.moments = ChannelMoments(self.channels)

    @property
    def planes(self) -> Tensor:
        """The activation [C, H, W]."""
        return self.storage[: self.channels]

    @property
    def bytes(self) -> int:
        """Of the whole storage."""
        return self.storage.numel() * self.storage.element_size()


@dataclass(frozen=True)
class Plan:
    """What run_exact() will do for one picture. tiles: steps of its progress.

    kept_bytes: most memory of the host for activations at once, the input included: at most two of the widest layer, in
    every published configuration.
    """

    tiles: int
    kept_bytes: int


@torch.no_grad()
def run_exact(coder: Coder, planes: Tensor, tile: int, label: str) -> Tensor:
    """The coder's result float32 [B, C', H', W'] of planes [B, C, H, W], on their device, picture by picture.

    tile: pixels of the picture along a side that bound what the device holds: no tensor on it has more elements than one of
    the coder's width on tile x tile, but for the rows around a tile, times the micro-batch. The progress takes a step per
    tile, and an interruption is noticed between tiles.
    """
    batch, channels, *_ = planes.shape
    progress = current_host().progress(batch * plan_exact(coder, planes.shape, tile).tiles, label)
    steps = _Working(coder, tile, progress)
    kept = [run_layers(coder.layers, Kept(picture.cpu(), channels), steps) for picture in planes]
    return torch.stack([one.planes for one in kept]).to(planes.device, torch.float32)


def plan_exact(coder: Coder, shape: Sequence[int], tile: int) -> Plan:
    """What run_exact() will do for each picture of planes of that shape [B, C, H, W]."""
    steps = _Planning(coder, tile)
    run_layers(coder.layers, Kept(torch.empty(*shape[1:], device="meta"), shape[1]), steps)
    return Plan(steps.tiles, steps.kept_bytes)


class _HostSteps(ABC):
    """Steps for the activations of one picture: where they are kept, and in which tiles they are made."""

    def __init__(self, coder: Coder, tile: int, storage_device: str) -> None:
        self.dtype = coder.dtype
        self.elements = coder.width * tile**2
        self.storage_device = storage_device

    def convolve(self, x: Kept, layer: Convolution, added: Kept | None = None, shortcut: nn.Conv2d | None = None) -> Kept:
        """The result takes the place of `added` where that has the channels: a tile reads no other part of it."""
        conv = layer.conv
        if added is not None and added.storage.shape[0] >= conv.out_channels:
            storage = added.storage
        else:
            storage = self._new_storage(conv.out_channels, *(int(side * layer.scale) for side in x.planes.shape[1:]))
        target = Kept(storage, conv.out_channels)
        channels = max(conv.in_channels * conv.stride[0] ** 2, conv.out_channels, 0 if added is None else added.channels)
        side = isqrt(self.elements // channels)
        self._convolve(target, x, layer, added, shortcut, plan_tiles_without_overlap(target.planes, side))
        return target

    def attend(self, x: Kept, layer: SelfAttention) -> Kept:
        target = Kept(self._new_storage(*x.planes.shape), x.channels)
        self._attend(target, x, layer, block_size(x.planes[0].numel(), x.channels, self.elements))
        return target

    def _new_storage(self, channels: int, height: int, width: int) -> Tensor:
        return torch.empty(height, width, channels, dtype=self.dtype, device=self.storage_device).permute(2, 0, 1)

    @abstractmethod
    def _convolve(
        self, target: Kept, x: Kept, layer: Convolution, added: Kept | None, shortcut: nn.Conv2d | None, plan: Sequence[Tile]
    ) -> None:
        """Make the target in these tiles."""

    @abstractmethod
    def _attend(self, target: Kept, x: Kept, layer: SelfAttention, block: int) -> None:
        """Make the target in blocks of that many positions."""


class _Planning(_HostSteps):
    """Counts tiles and bytes, with storage that has a size and nothing else."""

    def __init__(self, coder: Coder, tile: int) -> None:
        super().__init__(coder, tile, "meta")
        self.tiles, self.kept_bytes = 0, 0

    def _convolve(
        self, target: Kept, x: Kept, layer: Convolution, added: Kept | None, shortcut: nn.Conv2d | None, plan: Sequence[Tile]
    ) -> None:
        others = [] if added is None or added.storage is target.storage else [added]
        self._count(len(plan), target, x, *others)

    def _attend(self, target: Kept, x: Kept, layer: SelfAttention, block: int) -> None:
        self._count(ceil(x.planes[0].numel() / block), target, x)

    def _count(self, tiles: int, *kept: Kept) -> None:
        self.tiles += tiles
        self.kept_bytes = max(self.kept_bytes, sum(one.bytes for one in kept))


class _Working(_HostSteps):
    """Computes, a micro-batch of tiles at a time."""

    def __init__(self, coder: Coder, tile: int, progress: Progress) -> None:
        super().__init__(coder, tile, "cpu")
        self.progress = progress
        self.device, self.together = current_host().device, current_host().micro_batch

    def _convolve(
        self, target: Kept, x: Kept, layer: Convolution, added: Kept | None, shortcut: nn.Conv2d | None, plan: Sequence[Tile]
    ) -> None:
        statistics = None if layer.norm is None else x.moments.of_groups(layer.norm.num_groups)
        for first in range(0, len(plan), self.together):
            tiles = plan[first : first + self.together]
            inputs = [*_windows(x.planes, [_seen(tile, layer) for tile in tiles])]
            if added is not None:
                inputs.append(_windows(added.planes, tiles)[0])
            rows = [tensor.to(self.device, self.dtype) for tensor in inputs]
            results = run_model(_convolved, *rows, layer=layer, shortcut=shortcut, statistics=statistics)
            for tile, result in zip(tiles, results, strict=True):
                self._write(target, result, tile)

    def _write(self, target: Kept, result: Tensor, tile: Tile) -> None:
        """A result [C, h, w] that may reach beyond the target's lower and right border."""
        place = target.planes[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        values = result[:, : place.shape[1], : place.shape[2]]
        target.moments.add(values)
        place.copy_(values)
        self.progress.advance()

    def _attend(self, target: Kept, x: Kept, layer: SelfAttention, block: int) -> None:
        statistics, context = x.moments.of_groups(layer.norm.num_groups), x.planes.flatten(1)
        blocks = [Tile(0, start, 1, block) for start in range(0, context.shape[1], block)]
        row = Kept(target.storage.flatten(1)[:, None], target.channels)
        for first in range(0, len(blocks), self.together):
            tiles = blocks[first : first + self.together]
            queries = _windows(context[:, None], tiles)[0].flatten(2).to(self.device)
            found = run_model(attend_in_blocks, queries, layer=layer, statistics=statistics, context=context, block=block)
            for tile, result in zip(tiles, found, strict=True):
                self._write(row, result[:, None], tile)
        target.moments = row.moments


def plan_tiles_without_overlap(planes: Tensor, side: int) -> list[Tile]:
    """Tiles of one even size, sides up to `side`, that cover planes [C, H, W]; the last ones may reach beyond the border."""
    height, width = (_even_length(length, max(SMALLEST_SIDE, side)) for length in planes.shape[1:])
    tops, lefts = range(0, planes.shape[1], height), range(0, planes.shape[2], width)
    return [Tile(top, left, height, width) for top in tops for left in lefts]


def _even_length(length: int, largest: int) -> int:
    return 2 * ceil(length / ceil(length / (largest // 2 * 2)) / 2)


def _seen(tile: Tile, layer: Convolution) -> Tile:
    """The part of its input that a tile of the layer's result depends on."""
    before, after = layer.reach
    top, left, height, width = (int(side / layer.scale) for side in (tile.top, tile.left, tile.height, tile.width))
    return Tile(top - before, left - before, height + before + after, width + before + after)


def _windows(planes: Tensor, tiles: Sequence[Tile]) -> tuple[Tensor, Tensor]:
    """Windows [T, C, h, w] of planes [C, H, W], zero beyond their borders, and where they are inside, as ones [T, 1, h, w]."""
    windows = planes.new_empty(len(tiles), tiles[0].height, tiles[0].width, planes.shape[0]).permute(0, 3, 1, 2)
    inside = torch.zeros_like(windows[:, :1])
    for index, tile in enumerate(tiles):
        rows, columns = slice(max(tile.top, 0), tile.top + tile.height), slice(max(tile.left, 0), tile.left + tile.width)
        values = planes[:, rows, columns]
        place = (
            slice(None),
            slice(rows.start - tile.top, rows.start - tile.top + values.shape[1]),
            slice(columns.start - tile.left, columns.start - tile.left + values.shape[2]),
        )
        if values.shape != windows[index].shape:
            windows[index].zero_()
        windows[index][place].copy_(values)
        inside[index][place].fill_(1)
    return windows, inside


def _convolved(
    windows: Tensor,
    inside: Tensor,
    added: Tensor | None = None,
    *,
    layer: Convolution,
    shortcut: nn.Conv2d | None,
    statistics: Statistics | None,
) -> Tensor:
    """The layer on windows that hold everything their tiles depend on. What lies beyond the picture is zero for a convolution,
    not for the norm before it; the convolution's own padding at the windows' sides is cut off."""
    if layer.norm is not None and statistics is not None:
        windows = F.silu(normalise(windows, layer.norm, statistics), inplace=True).mul_(inside)
    if layer.upsamples:
        windows = F.interpolate(windows, scale_factor=2.0, mode="nearest")
    convolved: Tensor = layer.conv(windows)
    rim = int(layer.reach[0] * layer.scale)
    convolved = convolved[..., rim : convolved.shape[-2] - rim, rim : convolved.shape[-1] - rim]
    if added is None:
        return convolved
    return (added if shortcut is None else shortcut(added)) + convolved
