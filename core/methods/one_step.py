"""From a degraded picture to a restored one, for every method that needs a single network call.

Enlarge, pad, then per tile: encode, one step, decode; blend, crop, correct the colour once over the whole picture. Noise,
where a method wants some, is drawn once per latent pixel of the whole picture, so that tiles agree about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadValueError, OutOfMemoryError
from ..imaging.color_fix import Method, fix_colors
from ..imaging.padding import crop_around, pad_around, pad_to_multiple, plan_windows
from ..imaging.resize import resize
from ..imaging.tiling import Tile, blend_tiles, windows_of
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from ..randomness import draw_noise, picture_generators
from ..runtime import available_ram, current_host, require_finite, with_smaller_tiles

SMALLEST_TILE = 64
SMALLEST_LATENT_TILE = 16
# Float32 pictures of the result's size that live at once: enlarged, blended, weights, corrected, plus one of headroom.
LIVE_PICTURES = 5


class OneStepMethod(Protocol):
    """What a paper's method adds: one call on a scaled latent."""

    @property
    def latent_multiple(self) -> int:
        """Sides of a latent must be multiples of this."""

    @property
    def largest_side(self) -> int | None:
        """Latent pixels along a side that one call takes at most; None where there is no bound."""

    @property
    def noise_channels(self) -> int:
        """Channels of standard normal noise that restore_latent() takes beside the latent; 0 for none."""

    def restore_latent(self, latent: Tensor, noise: Tensor | None) -> Tensor:
        """Scaled latent [B, C, h, w] float32 of the restored picture; noise [B, noise_channels, h, w] or None."""

    def with_prompt(self, prompt: PromptEmbedding) -> OneStepMethod:
        """The same network with another prompt. Raises BadValueError when its prompt is folded into it."""


@dataclass(frozen=True)
class Generator:
    """A one-step restorer with the prior its latents belong to: the GENERATOR socket.

    border: pixels of reflection around every window, cropped again, for networks whose zero padding shows at edges.
    samples_posterior: whether the VAE's posterior is sampled, as TSD-SR was trained, or its mode taken.
    """

    name: str
    method: OneStepMethod
    prior: Prior
    border: int = 0
    samples_posterior: bool = False

    @property
    def multiple(self) -> int:
        """Sides of what goes through the networks must be multiples of this, in pixels."""
        return self.method.latent_multiple * self.prior.codec.downscale

    def bounded(self, tiling: Tiling) -> int:
        """The tile to begin with, in pixels: as asked for, or the largest that one call takes."""
        largest = self.method.largest_side
        if largest is None:
            return tiling.tile
        fitting = largest * self.prior.codec.downscale - tiling.overlap - 2 * self.border
        return max(SMALLEST_TILE, min(tiling.tile, fitting // self.multiple * self.multiple))

    def with_prompt(self, text: str) -> Generator:
        """The same restorer told what the picture shows; the stored prompt stays for an empty text. Raises BadValueError."""
        return replace(self, method=self.method.with_prompt(self.prior.encode_prompt(text))) if text.strip() else self


@dataclass(frozen=True)
class Tiling:
    """tile: pixels that each network call restores along a side; overlap: pixels it also sees and that are blended."""

    tile: int = 512
    overlap: int = 64


def restore(
    generator: Generator,
    pictures: Tensor,
    scale: float,
    seed: int,
    tiling: Tiling,
    color_fix: Method = "none",
    mask: Tensor | None = None,
) -> Tensor:
    """Restored pictures [B, round(scale H), round(scale W), 3] in 0..1 of pictures [B, H, W, 3] in 0..1.

    seed: picture i uses seed + i. mask [B or 1, H, W] in 0..1: what it leaves at 0 is kept, in the latent (InstaRevive's
    inpainting, x_0 = m x_0 + (1 - m) z_l) and in the pixels. Raises BadValueError for empty or non-finite input and a mask of
    another size, OutOfMemoryError before any work when the result would not fit the machine's memory.
    """
    require_finite(pictures, "The picture")
    _require_memory(pictures.shape, scale)
    masks = None if mask is None else _checked_masks(mask, pictures)
    noises = picture_generators(seed, pictures.shape[0])
    restored = []
    # As many at a time as fill a call of the networks.
    for start in range(0, pictures.shape[0], current_host().micro_batch):
        some = slice(start, start + current_host().micro_batch)
        areas = None if masks is None else masks[some]
        restored.append(_restore_some(generator, pictures[some], scale, noises[some], tiling, color_fix, areas))
    return torch.cat(restored)


def _checked_masks(mask: Tensor, pictures: Tensor) -> Tensor:
    """A mask for each picture [B, 1, H, W]."""
    batch, height, width, _ = pictures.shape
    if mask.shape[1:] != (height, width) or mask.shape[0] not in (1, batch):
        raise BadValueError(
            f"the mask is {list(mask.shape)}, expected [{batch} or 1, {height}, {width}] as the pictures are.",
            way_out="Resize the mask to the picture, or draw it on the picture itself.",
        )
    require_finite(mask, "The mask")
    return mask[:, None].clamp(0, 1).expand(batch, -1, -1, -1)


def _restore_some(
    generator: Generator,
    pictures: Tensor,
    scale: float,
    noises: Sequence[torch.Generator],
    tiling: Tiling,
    color_fix: Method,
    mask: Tensor | None,
) -> Tensor:
    """The networks see all pictures together, and everything else one after the other: its last bits depend on the batch as well."""
    planes = pictures.permute(0, 3, 1, 2)
    height, width = (max(1, round(side * scale)) for side in planes.shape[-2:])
    enlarged = torch.cat([_enlarged(picture, height, width) for picture in planes.split(1)])
    padded = pad_to_multiple(enlarged, generator.multiple)
    area = None if mask is None else pad_to_multiple(F.interpolate(mask, (height, width), mode="nearest-exact"), generator.multiple)
    network = _Windows(generator, area, *_drawn(generator, noises, padded.shape))

    def run(tile: int) -> Tensor:
        plan = plan_windows(padded, tile, tiling.overlap, generator.multiple)
        return blend_tiles(network, padded, plan, label="Restoring")

    restored = with_smaller_tiles(run, generator.bounded(tiling), SMALLEST_TILE)[..., :height, :width]
    require_finite(restored, "The restored picture")
    pairs = zip(restored.split(1), enlarged.split(1), strict=True)
    fixed = torch.cat([fix_colors(picture, reference, color_fix) for picture, reference in pairs])
    if area is not None:
        fixed = torch.lerp(enlarged, fixed, area[..., :height, :width])
    return fixed.clamp_(0, 1).permute(0, 2, 3, 1)


def _enlarged(planes: Tensor, height: int, width: int) -> Tensor:
    return planes if (height, width) == planes.shape[-2:] else resize(planes, height, width, "bicubic").clamp(0, 1)


def _drawn(generator: Generator, noises: Sequence[torch.Generator], shape: torch.Size) -> tuple[Tensor | None, Tensor | None]:
    """Noise [B, C, h, w] per latent pixel of pictures of that shape: for the posterior, then for the network."""
    codec = generator.prior.codec
    wanted = codec.channels if generator.samples_posterior else 0, generator.method.noise_channels
    sides = [side // codec.downscale for side in shape[-2:]]
    posterior, network = (draw_noise(noises, (channels, *sides)) if channels else None for channels in wanted)
    return posterior, network


@dataclass(frozen=True)
class _Windows:
    """Encode, one step, decode on windows of pictures; mask [B, 1, H, W] and noise [B, C, h, w] are those of the whole pictures."""

    generator: Generator
    mask: Tensor | None
    posterior_noise: Tensor | None
    network_noise: Tensor | None

    def __call__(self, windows: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """Restored planes [T, 3, h, w] of windows [T, 3, h, w]."""
        codec, border = self.generator.prior.codec, self.generator.border
        framed = pad_around(windows.to(current_host().device), border)
        latent = codec.encode(framed, self._of_latent(self.posterior_noise, tiles))
        restored = self.generator.method.restore_latent(latent, self._of_latent(self.network_noise, tiles))
        if self.mask is not None:
            area = pad_around(windows_of(self.mask, tiles), border)
            restored = torch.lerp(latent, restored, F.interpolate(area, latent.shape[-2:], mode="nearest-exact").to(latent))
        return crop_around(codec.decode(restored), border)

    def _of_latent(self, noise: Tensor | None, tiles: Sequence[Tile]) -> Tensor | None:
        downscale = self.generator.prior.codec.downscale
        return None if noise is None else pad_around(windows_of(noise, tiles, Fraction(1, downscale)), self.generator.border // downscale)


def restore_latent(generator: Generator, latent: Tensor, seed: int) -> Tensor:
    """One step on a scaled latent [B, C, h, w], padded to what the network needs and cropped again: whole where the
    network and the memory take that, else in blended tiles."""
    if latent.ndim != 4 or latent.shape[1] != generator.prior.codec.channels:
        raise BadValueError(
            f"the latent is {list(latent.shape)}, expected [batch, {generator.prior.codec.channels}, height, width].",
            where=generator.name, way_out="Encode the picture with the prior that belongs to this generator.",
        )  # fmt: skip
    require_finite(latent, "The latent")
    height, width = latent.shape[-2:]
    multiple = generator.method.latent_multiple
    padded = pad_to_multiple(latent, multiple)
    channels = generator.method.noise_channels
    noise = draw_noise(picture_generators(seed, latent.shape[0]), (channels, *padded.shape[-2:])) if channels else None

    def step(windows: Tensor, tiles: Sequence[Tile]) -> Tensor:
        drawn = None if noise is None else windows_of(noise, tiles)
        return generator.method.restore_latent(windows.to(current_host().device), drawn)

    def run(tile: int) -> Tensor:
        overlap = 0 if tile >= whole else tile // 8
        return blend_tiles(step, padded, plan_windows(padded, tile - overlap, overlap, multiple), label="Restoring")

    whole = max(padded.shape[-2:])
    return with_smaller_tiles(run, min(whole, generator.method.largest_side or whole), SMALLEST_LATENT_TILE)[..., :height, :width]


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
