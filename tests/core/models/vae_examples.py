"""Small VAEs of diffusers' class with random weights, norms included, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from kintsugi.core.models.mini import build_vae, vae_config
from torch import Tensor, nn

CHANNELS = (8, 16, 16)
LATENT_CHANNELS = 4


def random_vae(seed: int = 0, **changes: Any) -> AutoencoderKL:
    """Three levels, so 4 pixels per latent pixel; the middle channels differ, so that there are shortcut convolutions."""
    torch.manual_seed(seed)
    vae = build_vae({**vae_config(CHANNELS, LATENT_CHANNELS, 1, 4), **changes}).eval()
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias, 0, 0.5)
    return vae


def half_flat(channels: int, height: int, width: int) -> Tensor:
    """Two inputs [2, C, H, W] in -1..1: noise, and noise on the left of a flat right half."""
    values = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    values[1, :, :, width // 2 :] = 0.3
    return values
