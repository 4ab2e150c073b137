"""The shared mini VAE: a picture through 16 channels at a quarter of its side, and back.

Latents are held at zero mean and unit deviation per channel by a loss of their own, so that no scaling factor has to be
measured afterwards. Both clean and degraded crops are learned, since a restorer encodes the degraded ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ...core.models.mini import build_vae, vae_config
from ...core.weights.files import write_weights
from ..data import Batch
from ..latents import Autoencoder
from ..losses import gaussian_kl, gradient_loss, latent_moments, pixel_loss
from ..prompts import PromptCache
from ..recipe import Strict
from .base import Turns
from .linear_start import start_linear

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class MiniVaeSettings(Strict):
    channels: tuple[int, ...] = (32, 64, 64)
    latent_channels: int = 16
    layers_per_block: int = 1
    norm_groups: int = 8


class Autoencoding(nn.Module):
    """The VAE as one forward call, which is what data-parallel wrappers need."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pictures: Tensor, sample: bool) -> tuple[Tensor, Tensor, Tensor]:
        """pictures [B, 3, H, W] in 0..1 -> the same decoded, posterior mean and log variance [B, C, h, w]."""
        posterior = self.vae.encode(2 * pictures - 1).latent_dist
        latent = posterior.sample() if sample else posterior.mode()
        output = self.vae.decode(latent).sample.float() / 2 + 0.5
        return output, posterior.mean.float(), posterior.logvar.float()


class MiniVaeStage:
    """The encoder and decoder together, on clean and degraded crops alike."""

    Settings: ClassVar[type[Strict]] = MiniVaeSettings
    turns: ClassVar[Turns] = {"vae": ("pixel", "gradient", "kl", "moments")}

    def __init__(self, settings: MiniVaeSettings) -> None:
        self.config = vae_config(settings.channels, settings.latent_channels, settings.layers_per_block, settings.norm_groups)
        vae = build_vae(self.config)
        start_linear(vae)
        self.networks: dict[str, nn.Module] = {"vae": Autoencoding(vae)}
        self.frozen: dict[str, nn.Module] = {}
        self.vae: Autoencoder | None = None
        self.captioned: PromptCache | None = None

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        pictures = torch.cat(list(_pictures(batch).values())).to(memory_format=torch.channels_last)
        output, mean, log_variance = model(pictures, sample=True)
        losses = {
            "pixel": pixel_loss(output, pictures),
            "gradient": gradient_loss(output, pictures),
            "kl": gaussian_kl(mean, log_variance),
            "moments": latent_moments(mean),
        }
        return {name: loss for name, loss in losses.items() if name in wanted}

    def output(self, batch: Batch) -> dict[str, Tensor]:
        model = self.networks["vae"]
        columns = {f"{name} through the VAE": model(pictures, sample=False)[0] for name, pictures in _pictures(batch).items()}
        return {**columns, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / "mini-vae.safetensors", folder / "mini-vae.md"
        tensors = {name.removeprefix("vae."): tensor for name, tensor in self.networks["vae"].state_dict().items()}
        write_weights(weights, tensors, {"kind": "vae", "vae": self.config})
        text.write_text(card)
        return [weights, text]


def _pictures(batch: Batch) -> dict[str, Tensor]:
    """The clean crops, and the degraded ones where there are any."""
    spoilt = {} if batch.low_quality is None else {"low_quality": batch.low_quality}
    return {"high_quality": batch.high_quality, **spoilt}
