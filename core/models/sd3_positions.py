"""SD3's table of positions held as the two short ones it is made of: the same numbers, a thousandth of the memory.

Half of a position's channels depend on its column alone and half on its row: 192 x 192 positions of 1536 channels are
226 MB in float32, their factors 1.2 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


class FactoredPatchEmbed(nn.Module):
    """diffusers' PatchEmbed of SD3, to the bit: patches of a latent as tokens, with their positions added."""

    columns: Tensor
    rows: Tensor

    def __init__(self, proj: nn.Conv2d, columns: Tensor, rows: Tensor) -> None:
        """proj: the patch convolution; columns, rows [N, D / 2]: the two halves of the channels of N positions along a side."""
        super().__init__()
        self.proj = proj
        self.register_buffer("columns", columns)
        self.register_buffer("rows", rows)

    def forward(self, latent: Tensor) -> Tensor:
        """Tokens [B, h w, D] of a latent [B, C, h * patch, w * patch]; positions are those of the table's centre."""
        planes = self.proj(latent)
        height, width = planes.shape[-2:]
        positions = _joined(_centre(self.columns, width), _centre(self.rows, height))
        return (planes.flatten(2).transpose(1, 2) + positions.flatten(0, 1)).to(planes.dtype)


def _joined(columns: Tensor, rows: Tensor) -> Tensor:
    """Positions [h, w, D] of columns [w, D / 2] and rows [h, D / 2]."""
    return torch.cat([columns.expand(len(rows), -1, -1), rows[:, None].expand(-1, len(columns), -1)], dim=-1)


def _centre(values: Tensor, length: int) -> Tensor:
    return values.narrow(0, (values.shape[0] - length) // 2, length)


def factor_positions(transformer: SD3Transformer2DModel) -> None:
    """Replace the transformer's table by its factors where they give it back to the bit; any other table stays, and one
    without values (meta device) does."""
    embed = transformer.pos_embed
    side = embed.pos_embed_max_size
    table = embed.pos_embed[0].unflatten(0, (side, side))
    half = table.shape[-1] // 2
    columns, rows = table[0, :, :half], table[:, 0, half:]
    if not table.is_meta and torch.equal(_joined(columns, rows), table):
        transformer.pos_embed = FactoredPatchEmbed(embed.proj, columns.clone(), rows.clone())


def computed_positions(config: dict[str, Any]) -> Tensor:
    """The table [1, N * N, D] that the class has before it reads any file, for an SD3Transformer2DModel of that configuration."""
    from diffusers.models.embeddings import PatchEmbed

    return PatchEmbed(
        height=config["sample_size"],
        width=config["sample_size"],
        patch_size=config["patch_size"],
        in_channels=config["in_channels"],
        embed_dim=config["num_attention_heads"] * config["attention_head_dim"],
        pos_embed_max_size=config["pos_embed_max_size"],
    ).pos_embed
