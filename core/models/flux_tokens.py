"""Latents as Flux's transformer takes them: 2 x 2 latent pixels packed into a token, and where each token lies."""

from __future__ import annotations

import torch
from torch import Tensor

# Latent pixels along a side of a token.
PATCH = 2


def pack_latent(latent: Tensor) -> Tensor:
    """Tokens [B, h/2 w/2, 4C], row by row, of a latent [B, C, h, w] with even sides; channels in the order c, dy, dx."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack_latent(tokens: Tensor, height: int, width: int) -> Tensor:
    """pack_latent() undone: [B, C, height, width]."""
    patches = tokens.unflatten(-1, (-1, PATCH, PATCH)).unflatten(1, (height // PATCH, width // PATCH))
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(tokens.shape[0], -1, height, width)


def image_positions(height: int, width: int) -> Tensor:
    """(0, row, column) [h/2 w/2, 3] of the tokens of a latent of that size, for the rotary embedding."""
    rows, columns = torch.arange(float(height // PATCH)), torch.arange(float(width // PATCH))
    return torch.cartesian_prod(torch.zeros(1), rows, columns)


def text_positions(count: int) -> Tensor:
    """Zeros [count, 3]: a prompt's tokens lie nowhere."""
    return torch.zeros(count, 3)
