"""The VAE as training uses it: whole batches at once, and gradients through its decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.models.codec import LatentCodec, as_pictures, as_pixels
from .data import Batch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class Autoencoder(nn.Module):
    """Pictures [B, 3, H, W] in 0..1 to scaled latents [B, C, h, w] and back; its weights are frozen."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.codec = LatentCodec(vae)

    @torch.no_grad()
    def encode(self, pictures: Tensor, sample: bool = False) -> Tensor:
        """The posterior's mode, or a sample of it by torch's own generator."""
        planes = as_pixels(pictures).to(next(self.vae.parameters()).dtype).to(memory_format=torch.channels_last)
        moments = self.vae.encode(planes).latent_dist.parameters.float()
        noise = torch.randn_like(moments[:, : self.codec.channels]) if sample else None
        return self.codec.latent_of(moments, noise)

    def decode(self, latent: Tensor) -> Tensor:
        """Pictures in float32, not clamped; gradients flow through."""
        planes = self.codec.unscaled(latent).to(next(self.vae.parameters()).dtype)
        return as_pictures(self.vae.decode(planes).sample.float())


def high_latent(vae: Autoencoder, batch: Batch, sample: bool = False) -> Tensor:
    """Scaled latent of the clean pictures: the bank's, or encoded now."""
    return vae.encode(batch.high_quality, sample) if batch.high_latent is None else batch.high_latent


def low_latent(vae: Autoencoder, batch: Batch, sample: bool = False) -> Tensor:
    """Scaled latent of the degraded pictures: the bank's, or encoded now."""
    return vae.encode(batch.degraded, sample) if batch.low_latent is None else batch.low_latent
