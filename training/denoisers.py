"""One call for the denoisers of all families: what each calls its timestep, prompt and further conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.diffusion import NoiseSchedule, Prediction
from ..core.models.byte_text import PADDING, ByteTextEncoder
from ..core.models.flux_tokens import image_positions, pack_latent, text_positions, unpack_latent
from ..core.models.prompt import PromptEmbedding

# What a family's network tells of z_t: the noise in it, or the velocity of the flow.
PREDICTIONS: dict[str, Prediction] = {
    "sd3": "velocity", "flux": "velocity", "sdxl": "epsilon", "sd21-vae16": "epsilon", "pixart-alpha": "epsilon",
}  # fmt: skip
FLUX_STEPS = 1000


def predict(
    family: str,
    network: Any,
    z_t: Tensor,
    timestep: Tensor,
    prompt: PromptEmbedding,
    sizes: Tensor | None = None,
    guidance: Tensor | None = None,
) -> Tensor:
    """Noise or velocity [B, C, h, w], as PREDICTIONS has it, of z_t [B, C, h, w] at timestep [B] in 0..1000.

    prompt: tokens [B, N, D], pooled [B, P] and mask [B, N] as the family has them. sizes: SDXL's size ids [B, 6]. guidance [B]: Flux's.
    network: the family's diffusers class, possibly wrapped.
    """
    found: Tensor = _CALLS[family](network, z_t, timestep, prompt, sizes, guidance)
    return found


def _sd3(network: Any, z_t: Tensor, timestep: Tensor, prompt: PromptEmbedding, *_: Tensor | None) -> Tensor:
    return network(z_t, encoder_hidden_states=prompt.tokens, pooled_projections=prompt.pooled, timestep=timestep, return_dict=False)[0]


def _unet(network: Any, z_t: Tensor, timestep: Tensor, prompt: PromptEmbedding, *_: Tensor | None) -> Tensor:
    return network(z_t, timestep, prompt.tokens, return_dict=False)[0]


def _sdxl(network: Any, z_t: Tensor, timestep: Tensor, prompt: PromptEmbedding, sizes: Tensor | None, _: Tensor | None) -> Tensor:
    added = {"text_embeds": prompt.pooled, "time_ids": sizes}
    return network(z_t, timestep, prompt.tokens, added_cond_kwargs=added, return_dict=False)[0]


def _pixart(network: Any, z_t: Tensor, timestep: Tensor, prompt: PromptEmbedding, *_: Tensor | None) -> Tensor:
    """The second half of the output is a variance that nothing uses."""
    found = network(z_t, encoder_hidden_states=prompt.tokens, timestep=timestep, encoder_attention_mask=prompt.mask, return_dict=False)
    return found[0][:, : z_t.shape[1]]


def _flux(network: Any, z_t: Tensor, timestep: Tensor, prompt: PromptEmbedding, _: Tensor | None, guidance: Tensor | None) -> Tensor:
    height, width = z_t.shape[-2:]
    tokens = network(
        hidden_states=pack_latent(z_t),
        encoder_hidden_states=prompt.tokens,
        pooled_projections=prompt.pooled,
        timestep=timestep / FLUX_STEPS,
        img_ids=image_positions(height, width).to(z_t),
        txt_ids=text_positions(prompt.tokens.shape[1]).to(z_t),
        guidance=guidance,
        return_dict=False,
    )[0]
    return unpack_latent(tokens, height, width)


_CALLS: dict[str, Callable[..., Tensor]] = {
    "sd3": _sd3, "sd21-vae16": _unet, "sdxl": _sdxl, "pixart-alpha": _pixart, "flux": _flux,
}  # fmt: skip


def drawn_sizes(rows: int, device: torch.device) -> Tensor:
    """Size ids [rows, 6] of uncropped pictures of random sides from 64 to 2048, for a prior that shall work at any."""
    sides = torch.randint(64, 2049, (rows, 2), device=device)
    return torch.cat([sides, torch.zeros_like(sides), sides], dim=1).float()


def drawn_prompt(text: ByteTextEncoder, rows: int) -> PromptEmbedding:
    """Embeddings of `rows` texts of random bytes up to a random length, an empty one in every fourth row: a prior that learns from them
    pays no heed to prompts."""
    count, device = text.places.num_embeddings, text.places.weight.device
    lengths = torch.randint(count + 1, (rows, 1), device=device) * (torch.rand(rows, 1, device=device) > 0.25)
    ids = torch.randint(PADDING, (rows, count), device=device)
    tokens = text(torch.where(torch.arange(count, device=device) < lengths, ids, PADDING))
    pooled = text.pooling(tokens.sum(dim=1) / count**0.5)
    return PromptEmbedding(tokens, pooled, torch.ones(rows, count, device=device))


def denoised(schedule: NoiseSchedule, clean: Tensor, level: int, network: Callable[[Tensor, Tensor], Tensor], kind: Prediction) -> Tensor:
    """What a network, called with z_t and timesteps [B], takes for the latents [B, C, h, w] that were noised to that timestep."""
    timestep = torch.full((clean.shape[0],), level, device=clean.device)
    z_t = schedule.add_noise(clean, torch.randn_like(clean), timestep)
    return schedule.clean(z_t, network(z_t, timestep).float(), timestep, kind)
