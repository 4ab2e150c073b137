"""InstantIR with random weights, whole and ready to be asked: what its benchmark and the check on a GPU measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from kintsugi.core.diffusion import ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods.instantir_assembly import assembled, conditions_of
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR, Steering
from kintsugi.core.methods.instantir_parts import LqContext, Perceptor, Previewer
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet, build_vae, vae_config
from kintsugi.core.models.offload import Network, Offload, place
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.runtime import current_host
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.previewer import RANK, previewer_targets
from kintsugi.core.weights.unet_lora import factor_shapes
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

TIMESTEP = 501
TEXT_TOKENS, IMAGE_TOKENS, SIZE_WIDTH = 77, 257, 32
# Stand for encoders that run once per picture and have no part in this.
ENCODER = Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
VAE = vae_config((8, 8), 4, 1, 4)


@dataclass(frozen=True)
class Size:
    """unet: diffusers' configuration; resampler; rank: of the Previewer's adapter; side: of the latent."""

    unet: dict[str, Any]
    resampler: ResamplerConfig
    rank: int
    side: int


def sdxl_form(channels: list[int], depths: list[int], text: int, pooled: int) -> dict[str, Any]:
    """SDXL's configuration at other widths. depths: transformer layers of a block per level; text, pooled: widths of the prompt."""
    form = {
        "block_out_channels": channels, "transformer_layers_per_block": depths, "attention_head_dim": [width // 32 for width in channels],
        "cross_attention_dim": text, "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": pooled + 6 * SIZE_WIDTH,
    }  # fmt: skip
    return {**shipped_config("sdxl-unet"), **form}


# The middle one has a fifth of the published widths, and DINOv2-large's own tokens.
SIZES: dict[str, Callable[[], Size]] = {
    "tiny": lambda: Size(sdxl_form([32, 32, 64], [1, 1, 2], 32, 32), ResamplerConfig(32, 1, 16, 2, 8, 1024, 32), 4, 8),
    "mid": lambda: Size(sdxl_form([64, 128, 256], [1, 2, 4], 416, 256), ResamplerConfig(256, 4, 64, 4, 64, 1024, 416), RANK, 64),
    "published": lambda: Size(shipped_config("sdxl-unet"), ResamplerConfig(), RANK, 128),
}


@dataclass(frozen=True)
class Subject:
    """Random parts of one size, and what they are asked: a picture and two prompts, for guidance."""

    prior: Prior
    context: LqContext
    factors: dict[str, Factors]
    rank: int
    aggregator: Aggregator
    degraded: Tensor
    prompt: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def drawn(cls, size: Size, dtype: torch.dtype = torch.float32, offload: Offload = "none") -> Subject:
        """The same numbers whatever dtype and offload, on the host's device, where billions of them are drawn in seconds."""
        device, config = current_host().device, size.unet
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        torch.manual_seed(0)
        with device:
            unet = at_rest(build_unet(config))
            dcp = at_rest(DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, size.resampler))
            aggregator = at_rest(randomised(Aggregator(build_unet(config))))
            shapes = {name: factor_shapes(layer, size.rank) for name, layer in previewer_targets(unet, dcp)}
            factors = {name: Factors(*(torch.randn(shape) / shape[1] ** 0.5 for shape in pair)) for name, pair in shapes.items()}
            encoded = torch.randn(2, IMAGE_TOKENS, size.resampler.embedding_dim).split(1)
            prompt = (torch.randn(2, TEXT_TOKENS, config["cross_attention_dim"]), torch.randn(2, pooled))
            degraded = torch.randn(1, config["in_channels"], size.side, size.side)
        placed = place(unet, dtype, offload)
        prior = Prior("sdxl", LatentCodec(build_vae(VAE)), lambda: placed, None, ddpm_schedule(scaled_linear_betas()), dtype, offload)
        context = LqContext(Perceptor("random", place(dcp, dtype), Dinov2Model(ENCODER)), *encoded)
        size_ids = torch.tensor([[8.0 * size.side, 8.0 * size.side, 0, 0, 8.0 * size.side, 8.0 * size.side]] * 2)
        return cls(prior, context, factors, size.rank, place(aggregator, dtype, offload), degraded, (*prompt, size_ids))

    @contextmanager
    def running(self, merged: bool) -> Iterator[tuple[InstantIR, Conditions]]:
        """The networks as we run them, for a guided batch."""
        with assembled(self.prior, self.context, self.previewer(merged), self.aggregator) as networks:
            yield networks, conditions_of(networks, self.image_tokens, *self.prompt)

    @property
    def image_tokens(self) -> Tensor:
        """The encoder's [2, N, D], of no picture and of one."""
        return torch.cat([self.context.blank, self.context.tokens])

    def calls(self, networks: InstantIR, conditions: Conditions) -> dict[str, Callable[[], Tensor]]:
        """One guided call of each network. The U-Net's noise is steered by residuals, which are made beforehand."""
        rows = torch.cat([self.degraded] * 2)
        timestep = torch.full((2,), TIMESTEP, device=rows.device)
        steering = Steering(rows, rows, torch.ones(2, device=rows.device))
        residuals = networks.residuals(steering, timestep, conditions)
        return {
            "Previewer": lambda: networks.preview(rows, timestep, conditions).latent,
            "Aggregator": lambda: networks.residuals(steering, timestep, conditions)[-1],
            "U-Net": lambda: networks.denoise(rows, timestep, conditions, None, residuals).eps,
        }

    def previewer(self, merged: bool) -> Previewer:
        return Previewer("random", lambda *_: self.factors, 1 / self.rank, merged)


def at_rest(network: Network) -> Network:
    """In the machine's memory, from where place() takes it."""
    nn.Module.to(network, "cpu")
    return network


def randomised(aggregator: Aggregator) -> Aggregator:
    """Adding something: its residuals start at zero."""
    for residual in (*aggregator.controlnet_down_blocks, aggregator.controlnet_mid_block):
        nn.init.normal_(residual[1].weight, std=residual[1].in_channels ** -0.5)
    return aggregator
