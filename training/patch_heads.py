"""GenDR's discriminator: a small head for each of some blocks of a score network, which says patch by patch how real they look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .features import Features


class PatchHead(nn.Module):
    """3x3 convolution, group norm, SiLU, 1x1 convolution."""

    def __init__(self, channels: int, width: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.GroupNorm(groups, width)
        self.activation = nn.SiLU()
        self.conv2 = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, 1, h, w] of features [B, C, h, w]."""
        logits: Tensor = self.conv2(self.activation(self.norm(self.conv1(features.to(self.conv1.weight.dtype)))))
        return logits


class PatchHeads(nn.Module):
    """Heads below the names of their blocks, which is how a file of them is laid out."""

    def __init__(self, channels: Mapping[str, int], width: int = 256, groups: int = 32) -> None:
        """channels: of the features by the block's dotted name, as of discriminated_blocks()."""
        super().__init__()
        self.blocks = tuple(channels)
        for name, count in channels.items():
            *parents, last = name.split(".")
            place: nn.Module = self
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(last, PatchHead(count, width, groups))

    def forward(self, features: Features) -> list[Tensor]:
        """Logits [B, 1, h, w] of every head, in the order of the blocks."""
        return [self.get_submodule(name)(features[name]) for name in self.blocks]


def discriminated_blocks(unet: Mapping[str, Any]) -> dict[str, int]:
    """Channels by name of the blocks that a U-Net of this configuration is judged by: its last down block with cross attention, where it
    has one, and its middle."""
    widths = unet["block_out_channels"]
    attending = [index for index, kind in enumerate(unet["down_block_types"]) if kind.startswith("CrossAttn")]
    return {**{f"down_blocks.{index}": widths[index] for index in attending[-1:]}, "mid_block": widths[-1]}
