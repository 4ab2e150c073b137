"""SwinIR as DiffBIR trains it for coarse restoration: pixels unshuffled into channels, Swin blocks, nearest and convolve back.

"SwinIR: Image Restoration Using Swin Transformer" (arXiv 2108.10257); stage one of "DiffBIR" (arXiv 2308.15070), and what
InstaRevive puts before its generator. Parameters have the names of the published files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadValueError
from .swin import SwinGroup, shift_mask

RGB_MEAN = (0.4488, 0.4371, 0.4040)
# Of the leaky ReLU before the first enlargement, and of all later ones.
COARSE_SLOPE, UPSAMPLED_SLOPE = 0.01, 0.2
# What SwinIR offers beside it is not in the published restorers.
FIXED: dict[str, Any] = {"patch_size": 1, "in_chans": 3, "upsampler": "nearest+conv", "resi_connection": "1conv", "unshuffle": True}


@dataclass(frozen=True)
class SwinIRConfig:
    """The keys of the published configuration; num_feat, which is always 64 there, is ours.

    img_size: side in feature pixels of the training's grid. depths, num_heads: blocks and heads of each group. sf: how many
    times the features grow on the way out, equal to unshuffle_scale so that a picture keeps its size.
    """

    img_size: int
    patch_size: int
    in_chans: int
    embed_dim: int
    depths: Sequence[int]
    num_heads: Sequence[int]
    window_size: int
    mlp_ratio: float
    sf: int
    img_range: float
    upsampler: str
    resi_connection: str
    unshuffle: bool
    unshuffle_scale: int
    num_feat: int = 64

    def __post_init__(self) -> None:
        """Raise BadValueError for what is no coarse restorer, and for numbers that do not fit each other."""
        others = [f"{name} is {getattr(self, name)!r}, expected {value!r}" for name, value in FIXED.items() if getattr(self, name) != value]
        if self.sf != self.unshuffle_scale or self.sf.bit_count() != 1:
            others.append(f"sf is {self.sf} and unshuffle_scale {self.unshuffle_scale}, expected the same power of two")
        if len(self.depths) != len(self.num_heads) or any(self.embed_dim % heads for heads in self.num_heads):
            others.append(f"{len(self.depths)} groups of width {self.embed_dim} do not fit heads {list(self.num_heads)}")
        if others:
            raise BadValueError("; ".join(others) + ".", where="SwinIR", way_out="The configuration is of another network.")

    @property
    def window(self) -> int:
        """Side of a window in feature pixels, never larger than the training's grid."""
        return min(self.window_size, self.img_size)

    @property
    def shift(self) -> int:
        """Feature pixels by which every second block shifts its windows: none where training saw a single window."""
        return self.window_size // 2 if self.img_size > self.window_size else 0

    @property
    def multiple(self) -> int:
        """Sides of a picture must be multiples of this, in pixels."""
        return self.unshuffle_scale * self.window


class SwinIR(nn.Module):
    """Degraded picture in, coarse restoration of the same size out."""

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        dim, features = config.embed_dim, config.num_feat
        self.conv_first = nn.Sequential(
            nn.PixelUnshuffle(config.unshuffle_scale), nn.Conv2d(config.in_chans * config.unshuffle_scale**2, dim, 3, 1, 1)
        )
        # The published names put the first normalisation into a patch embedding that has nothing else.
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList(
            SwinGroup(dim, depth, heads, config.window, config.shift, config.mlp_ratio)
            for depth, heads in zip(config.depths, config.num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, 1, 1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, features, 3, 1, 1), nn.LeakyReLU(COARSE_SLOPE))
        self.upsampling = [f"conv_up{index + 1}" for index in range(config.sf.bit_length() - 1)]
        for name in self.upsampling:
            self.add_module(name, nn.Conv2d(features, features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, config.in_chans, 3, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Restored pictures [B, 3, H, W], about 0..1 but not clamped, of degraded ones in 0..1; sides in config.multiple."""
        height, width = pictures.shape[-2:]
        if height % self.config.multiple or width % self.config.multiple:
            raise BadValueError(f"{width} x {height} pixels are no multiples of {self.config.multiple}.", way_out="Pad the picture first.")
        mean = pictures.new_tensor(RGB_MEAN)[:, None, None]
        first = self.conv_first((pictures - mean) * self.config.img_range)
        features = self.conv_before_upsample(first + self.conv_after_body(self._body(first)))
        for name in self.upsampling:
            features = _activated(self.get_submodule(name)(F.interpolate(features, scale_factor=2, mode="nearest")))
        return self.conv_last(_activated(self.conv_hr(features))) / self.config.img_range + mean

    def _body(self, first: Tensor) -> Tensor:
        """The Swin groups on features [B, C, h, w]."""
        height, width = first.shape[-2:]
        mask = shift_mask(height, width, self.config.window, self.config.shift, first.device)
        features = self.patch_embed["norm"](first.permute(0, 2, 3, 1))
        for group in self.layers:
            features = group(features, mask)
        return self.norm(features).permute(0, 3, 1, 2)


def _activated(features: Tensor) -> Tensor:
    return F.leaky_relu(features, UPSAMPLED_SLOPE)


def derived_shapes(config: SwinIRConfig) -> dict[str, list[int]]:
    """Names and shapes of what the published files store although it follows from the configuration and the picture."""
    pixels, windows = config.window**2, (config.img_size // config.window) ** 2
    shapes = {}
    for group, depth in enumerate(config.depths):
        for block in range(depth):
            name = f"layers.{group}.residual_group.blocks.{block}"
            shapes[f"{name}.attn.relative_position_index"] = [pixels, pixels]
            if config.shift and block % 2:
                shapes[f"{name}.attn_mask"] = [windows, pixels, pixels]
    return shapes
