"""TSD-SR's networks in training: adapters on one frozen base, the student of two of them, and guided velocities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.folders import user_data_directory
from ..core.methods.tsd_sr import OneStepConstants, TsdSr
from ..core.models.codec import as_pixels
from ..core.models.prompt import PromptEmbedding
from ..core.weights.files import read_weights, require_exact
from ..core.weights.lora import DOWN, UP
from .adapters import Adapted, suffix_targets
from .bases import Base, is_dry
from .denoisers import predict
from .latents import Autoencoder
from .losses import guided
from .prompts import PromptCache
from .tsd_sr_losses import Velocity

# The auxiliary network's; the student and the teacher have those of core/weights/tsd_sr.py.
AUXILIARY_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
PUBLISHED_PREFIX = "transformer."
STEPS = 1000


def adapt(network: nn.Module, targets: Sequence[str], rank: int, scale: float = 1.0) -> Adapted:
    """The network with a new adapter on the layers whose names end in one of the targets. Raises BadValueError when there is none."""
    return Adapted(network, suffix_targets(network, targets), rank, scale)


def unprompted(base: Base, timestep: float) -> TsdSr:
    """The prior as a student that has been told nothing yet, its prompt being [1, 0, D]. As in the release, the network is shown latents
    that are not shifted."""
    denoiser: Any = base.denoiser
    text = denoiser.config
    prompt = PromptEmbedding(torch.empty(1, 0, text.joint_attention_dim), torch.zeros(1, text.pooled_projection_dim))
    return TsdSr(denoiser, prompt, OneStepConstants(latent_offset(base.vae), timestep))


def latent_offset(autoencoder: Autoencoder) -> float:
    """What the release's latents have on top of scaled ones: SD3's shift is left out in them."""
    config = autoencoder.vae.config
    return float(config.scaling_factor * (config.shift_factor or 0.0))


def prompt_cache(base: Base, weights: str, many: bool) -> PromptCache:
    """The base's embeddings; on disk where the pictures' captions make them many."""
    return PromptCache(base.prompts, f"{base.name} {weights}", user_data_directory() / "prompts" if many else None)


def embed(prompts: PromptCache, texts: Sequence[str], device: torch.device) -> PromptEmbedding:
    """Tokens [B, N, D] and pooled [B, P] of the texts, on that device."""
    found = prompts.batch(texts)
    return PromptEmbedding(found.tokens.to(device), None if found.pooled is None else found.pooled.to(device))


class Encoding(nn.Module):
    """The VAE's encoder as a network of one call, for an adapter to be put on."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.vae, self.codec = autoencoder.vae, autoencoder.codec

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """Scaled latent [B, C, h, w] float32 of pictures [B, 3, H, W] in 0..1: the posterior's sample by that standard normal noise
        [B, C, h, w]."""
        planes = as_pixels(pictures).to(self.vae.dtype).to(memory_format=torch.channels_last)
        return self.codec.latent_of(self.vae.encode(planes).latent_dist.parameters.float(), noise)

    def noise_for(self, pictures: Tensor) -> Tensor:
        """Drawn by torch's own generator."""
        height, width = (side // self.codec.downscale for side in pictures.shape[-2:])
        return torch.randn(pictures.shape[0], self.codec.channels, height, width, device=pictures.device)


class Student(nn.Module):
    """What is distilled: the adapted encoder, then the adapted transformer's one step."""

    def __init__(self, encoder: Adapted, step: Adapted) -> None:
        """encoder: adapts an Encoding; step: a TsdSr."""
        super().__init__()
        self.encoder, self.step = encoder, step

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """Restored latent z^ [B, C, h, w] float32 (scaled) of low-quality pictures [B, 3, H, W] in 0..1; noise as Encoding takes it."""
        restored: Tensor = self.step(self.encoder(pictures, noise))
        return restored.float()

    def published(self) -> dict[str, dict[str, Tensor]]:
        """The factors by the release's file, `transformer` and `vae`."""
        return {"transformer": published_factors(self.step, "transformer."), "vae": published_factors(self.encoder, "vae.")}


def sd3_velocity(network: nn.Module, z_t: Tensor, sigma: Tensor, prompt: PromptEmbedding) -> Tensor:
    """v(z_t; t = 1000 sigma, c) [B, C, h, w] float32 of Stable Diffusion 3, plain or adapted; sigma [B]."""
    return predict("sd3", network, z_t, STEPS * sigma, prompt).float()


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: v = v(null) + scale (v(prompt) - v(null)). prompt, null: embeddings of B rows."""

    prompt: PromptEmbedding
    null: PromptEmbedding
    scale: float

    def of(self, network: nn.Module) -> Velocity:
        """The network's guided velocity, by one call of 2 B rows; of B where the scale is 1 and the null prompt has no say."""
        if self.scale == 1:
            return lambda z_t, sigma: sd3_velocity(network, z_t, sigma, self.prompt)
        both = PromptEmbedding(*(torch.cat(pair) for pair in zip(_told(self.null), _told(self.prompt), strict=True)))

        def velocity(z_t: Tensor, sigma: Tensor) -> Tensor:
            null, told = sd3_velocity(network, z_t.repeat(2, 1, 1, 1), sigma.repeat(2), both).chunk(2)
            return guided(null, told, self.scale)

        return velocity


def _told(prompt: PromptEmbedding) -> list[Tensor]:
    """What SD3 hears of a prompt."""
    return [part for part in (prompt.tokens, prompt.pooled) if part is not None]


def published_factors(adapted: Adapted, part: str = "") -> dict[str, Tensor]:
    """The adapter's own tensors as the release names them, `transformer.<layer>.lora_A.weight` and `.lora_B.weight`, that of the VAE
    too. part: where in the adapted network the release's one lies."""
    found: dict[str, Tensor] = {}
    for name, pair in adapted.factors().items():
        layer = PUBLISHED_PREFIX + name.removeprefix(part)
        found |= {layer + DOWN: pair.first, layer + UP: pair.second}
    return found


def load_factors(factors: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Give an adapter's published_factors() the values of a file. Raises WeightsError for names and shapes that differ."""
    require_exact({name: tensor.shape for name, tensor in factors.items()}, tensors, where)
    with torch.no_grad():
        for name, factor in factors.items():
            factor.copy_(tensors[name])


def read_adapter(adapted: Adapted, path: Path) -> Adapted:
    """The adapter with the factors of a published file; in a dry run nothing is read. Raises WeightsError."""
    if not is_dry():
        load_factors(published_factors(adapted), read_weights(path)[0], str(path))
    return adapted
