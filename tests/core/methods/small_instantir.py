"""InstantIR at its smallest: every part of the true classes from small configurations, random, and steering to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from kintsugi.core.diffusion import ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods.instantir import Options
from kintsugi.core.methods.instantir_parts import LqContext, Perceptor, Previewer
from kintsugi.core.methods.instantir_restore import Restored, perceive, restore_latent
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet, build_vae, vae_config
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.resampler import ResamplerConfig
from torch import Tensor, nn

# Three levels as SDXL has them, so that latent sides must be multiples of four.
UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": 1,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 2, "cross_attention_dim": 12,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 32,
    "use_linear_projection": True,
}  # fmt: skip
RESAMPLER = ResamplerConfig(dim=8, depth=1, dim_head=4, heads=2, num_queries=3, embedding_dim=12, output_dim=12)
POOLED = 32 - 6 * 4


@dataclass(frozen=True)
class Parts:
    """What the nodes hand to each other, with a latent of two pictures."""

    prior: Prior
    perceptor: Perceptor
    previewer: Previewer
    aggregator: Aggregator
    context: LqContext
    latent: Tensor

    @property
    def unet(self) -> Any:
        """The prior's network."""
        assert self.prior.denoiser is not None
        return self.prior.denoiser()

    def restore(self, latent: Tensor, options: Options, seed: int = 0, context: LqContext | None = None, **more: Any) -> Restored:
        """restore_latent() with these parts and two short prompts."""
        prompts = (self.prior.encode_prompt("sharp"), self.prior.encode_prompt("blurred"))
        seen = context or self.context
        return restore_latent(self.prior, seen, self.previewer, self.aggregator, latent, *prompts, seed, options, **more)


def seen_by(parts: Parts, index: int) -> LqContext:
    """The context of one picture of the batch."""
    return LqContext(parts.perceptor, parts.context.tokens[index : index + 1], parts.context.blank)


@cache
def small_parts() -> Parts:
    """Made once for all tests, none of which changes them."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    unet = build_unet(UNET).eval()
    dcp = DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, RESAMPLER).eval()
    encoder = Dinov2Model(Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=28)).eval()
    aggregator = Aggregator(build_unet(UNET)).eval()
    for residual in (*aggregator.controlnet_down_blocks, aggregator.controlnet_mid_block):
        nn.init.normal_(residual[1].weight, std=0.3)
    codec = LatentCodec(build_vae(vae_config((8, 8, 8), 4, 1, 4)).eval())
    text = ByteTextEncoder(tokens=7, width=UNET["cross_attention_dim"], pooled=POOLED)
    prior = Prior("sdxl", codec, lambda: unet, text.encode, ddpm_schedule(scaled_linear_betas()))
    factors = {f"unet.{name}": drawn(layer) for name, layer in unet.named_modules() if name.endswith(("attn1.to_q", "to_out.0"))}
    previewer = Previewer("small", lambda *_: factors, 0.5)
    perceptor = Perceptor("small", dcp, encoder)
    context = perceive(perceptor, torch.rand(2, 40, 48, 3))
    return Parts(prior, perceptor, previewer, aggregator, context, torch.randn(2, 4, 10, 13))


def drawn(layer: Any) -> Factors:
    return Factors(torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2))
