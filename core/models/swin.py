"""Swin transformer blocks: attention inside square windows, shifted by half a window in every second block.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv 2103.14030), with SwinIR's names. Features are
[B, h, w, C] here; h and w are multiples of the window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEPARATED = -100.0  # what is added to the attention between regions that only the shift brought together


class SwinGroup(nn.Module):
    """Swin blocks and a 3x3 convolution, added to what came in (SwinIR's RSTB with the "1conv" connection)."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, shift: int, mlp_ratio: float) -> None:
        """shift: pixels by which every second block shifts its windows."""
        super().__init__()
        blocks = [SwinBlock(dim, heads, window, shift if index % 2 else 0, mlp_ratio) for index in range(depth)]
        # The published names put one more module around the list of blocks.
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(dim, dim, 3, 1, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [B, h, w, C]; mask: shift_mask() of the grid."""
        result = features
        for block in self.residual_group["blocks"].children():
            result = block(result, mask)
        return features + self.conv(result.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinBlock(nn.Module):
    """Window attention and a perceptron, each on normalised features and added to them."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron(dim, int(dim * mlp_ratio))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [B, h, w, C]; the mask counts where the windows are shifted."""
        normed = self.norm1(features)
        if self.shift:
            shifted = windows_of_grid(normed.roll((-self.shift, -self.shift), (1, 2)), self.window)
            attended = grid_of_windows(self.attn(shifted, mask), features.shape, self.window).roll((self.shift, self.shift), (1, 2))
        else:
            attended = grid_of_windows(self.attn(windows_of_grid(normed, self.window), None), features.shape, self.window)
        features = features + attended
        return features + self.mlp(self.norm2(features))


class WindowAttention(nn.Module):
    """Attention among the pixels of a window, with a learned bias for every offset between two of them."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))
        self.register_buffer("relative_position_index", offset_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """windows [B, W, N, C] of N pixels each; mask [W, N, N] is added to the attention of each window."""
        batch, count, pixels, dim = windows.shape
        query, key, value = self.qkv(windows).view(batch, count, pixels, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None].to(bias)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query))
        return self.proj(attended.transpose(2, 3).reshape(batch, count, pixels, dim))


class Perceptron(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, features: Tensor) -> Tensor:
        """features [..., C]."""
        return self.fc2(F.gelu(self.fc1(features)))


def offset_index(window: int) -> Tensor:
    """[N, N] int64: the row of the bias table for the offset from pixel j to pixel i of a window of N = window^2 pixels."""
    rows, columns = torch.arange(window).repeat_interleave(window), torch.arange(window).repeat(window)
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + window - 1) * (2 * window - 1) + right + window - 1


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device | None = None) -> Tensor:
    """[W, N, N]: 0 between pixels of a shifted window that are neighbours in the picture, SEPARATED where only the shift's
    wrap-around brought them together."""
    rows, columns = _sections(height, window, shift, device), _sections(width, window, shift, device)
    regions = windows_of_grid((3 * rows[:, None] + columns)[None, :, :, None], window)[0, :, :, 0]
    return torch.where(regions[:, None] == regions[:, :, None], 0.0, SEPARATED)


def _sections(length: int, window: int, shift: int, device: torch.device | None) -> Tensor:
    """[length]: 0 up to the last window, whose part that was wrapped around is 2 and whose other part is 1."""
    positions = torch.arange(length, device=device)
    return (positions >= length - window).long() + (positions >= length - shift).long()


def windows_of_grid(features: Tensor, window: int) -> Tensor:
    """[B, h, w, C] -> [B, W, N, C]: W windows row by row, the N pixels of each row by row."""
    batch, height, width, dim = features.shape
    parts = features.view(batch, height // window, window, width // window, window, dim)
    return parts.transpose(2, 3).reshape(batch, -1, window * window, dim)


def grid_of_windows(windows: Tensor, shape: torch.Size, window: int) -> Tensor:
    """[B, W, N, C] -> [B, h, w, C] of that shape: undoes windows_of_grid()."""
    batch, height, width, dim = shape
    parts = windows.view(batch, height // window, width // window, window, window, dim)
    return parts.transpose(2, 3).reshape(batch, height, width, dim)
