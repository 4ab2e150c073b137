"""Pictures to scaled latents and back: a VAE with the numbers that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..runtime import current_host, run_model

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True)
class LatentCodec:
    """A diffusers AutoencoderKL and the numbers of its latents: networks see scaling_factor * (z - shift_factor), the scaled latent.

    On a wire of a graph, ComfyUI's or ours, travels z itself: see unscaled() and scaled().
    """

    vae: AutoencoderKL

    @property
    def downscale(self) -> int:
        """Pixels per latent pixel along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def channels(self) -> int:
        """C of a latent [B, C, h, w]."""
        return int(self.vae.config.latent_channels)

    @torch.inference_mode()
    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latent [B, C, h, w] float32 of pictures [B, 3, H, W] in 0..1: the posterior's mode, or its sample by
        standard normal noise [B, C, h, w]."""
        moments = run_model(self._moments, self._placed(as_pixels(pictures))).float()
        return self.latent_of(moments, noise).to(pictures.device)

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] float32 (not clamped) of a scaled latent [B, C, h, w]."""
        pixels = run_model(self._decode, self._placed(self.unscaled(latent))).float()
        return as_pictures(pixels).to(latent.device)

    def latent_of(self, moments: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latent [B, C, h, w] from what the VAE's encoder says, mean and log-variance [B, 2C, h, w]: see encode()."""
        mean, log_variance = moments.chunk(2, dim=1)
        if noise is not None:
            mean = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise.to(mean)
        return self.scaled(mean)

    def scaled(self, latent: Tensor) -> Tensor:
        """The scaled latent [B, C, h, w] of what the VAE's encoder gives and its decoder takes."""
        return (latent - self._shift) * self._scale

    def unscaled(self, latent: Tensor) -> Tensor:
        """scaled() undone."""
        return latent / self._scale + self._shift

    def _placed(self, planes: Tensor) -> Tensor:
        return planes.to(current_host().device, next(self.vae.parameters()).dtype)

    def _moments(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(pictures).latent_dist.parameters

    def _decode(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent).sample

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(self.vae.config.shift_factor or 0.0)


def as_pixels(pictures: Tensor) -> Tensor:
    """Values in -1..1, as a VAE takes and gives them, of pictures in 0..1."""
    return 2 * pictures - 1


def as_pictures(pixels: Tensor) -> Tensor:
    """as_pixels() undone."""
    return pixels / 2 + 0.5
