"""A Flux of five blocks and adapters for it, drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.flux_adapter import FluxAdapter
from kintsugi.core.models.mini import build_vae, vae_config
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.prompt import PromptEmbedding

CONFIG: dict[str, Any] = {
    "patch_size": 1, "in_channels": 16, "num_layers": 2, "num_single_layers": 3, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 24, "pooled_projection_dim": 20, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
TEXT_TOKENS = 5


@torch.no_grad()
def tiny_flux(**changes: Any) -> Any:
    """A FluxTransformer2DModel, the same at every call."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(1)
    return FluxTransformer2DModel.from_config({**CONFIG, **changes}).eval()


@torch.no_grad()
def tiny_adapter(flux: Any, trained: bool = True, **own: Any) -> FluxAdapter:
    """As it begins, or with every tensor drawn, so that nothing of it is zero."""
    torch.manual_seed(2)
    adapter = FluxAdapter.from_transformer(flux, **{"text_tokens": TEXT_TOKENS, "rank": 4, **own}).eval()
    if trained:
        for parameter in adapter.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return adapter


def tiny_prior(flux: Any) -> Prior:
    """The network behind a VAE of two pixels per latent pixel; every prompt has an embedding of its own."""
    codec = LatentCodec(build_vae(vae_config((8, 8), 4, 1, 4)).eval())
    return Prior("flux", codec, lambda: flux, tiny_prompt)


def tiny_prompt(text: str) -> PromptEmbedding:
    random = torch.Generator().manual_seed(len(text))
    tokens = torch.randn(1, TEXT_TOKENS, CONFIG["joint_attention_dim"], generator=random)
    return PromptEmbedding(tokens, torch.randn(1, CONFIG["pooled_projection_dim"], generator=random))
