"""FluxIR's adapter, trained to steer a frozen Flux ("Acquire and then Adapt", arXiv 2504.15159, section 3).

A clean latent is noised to a time of f(u) (equations 5 and 6), the steered Flux says its velocity, and what is wrong with that counts
twice: as it is (equation 8), and through the frozen decoder (equation 9). The recipe's weights are those of equation 10: 1 and alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.diffusion import flow_schedule, flux_sigmas
from ...core.errors import RecipeError
from ...core.methods.fluxir import Options, sample
from ...core.models.codec import as_pixels
from ...core.models.controlled_flux import ControlledFlux, controlled
from ...core.models.flux_adapter import FluxAdapter, Injection
from ...core.models.flux_tokens import PATCH, image_positions, pack_latent, unpack_latent
from ...core.models.prompt import PromptEmbedding
from ...core.runtime import DTYPES
from ...core.weights.fluxir import write_adapter
from ..bases import base_parts
from ..data import Batch
from ..latents import high_latent, low_latent
from ..losses import PixelForm, clamped_times, decoded_loss, implied_latents, velocity_loss
from ..prompts import PromptCache
from ..recipe import Strict
from .base import Turns

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

# Timesteps of Flux's flow as its network takes them, in 0..1.
FLOW = flow_schedule(steps=1)


class FluxIrSettings(Strict):
    """base: a Flux, see bases.base_parts(). text_tokens: how long its prompts are. rank: of the bottlenecks, null for full matrices
    (Table 2). injection: where controls enter. timesteps: f(u) with epsilon, or what Table 3 compares it with. pixel_form: which
    latents the pixel loss decodes. guidance: the scale that Flux is told. offsets, text_controls: whether theta and SE_p are trained
    (Table 6). sampling_steps: for validation pictures. name, dtype: of the exported file."""

    base: str = "embedded"
    text_tokens: int = Field(512, ge=1)
    rank: int | None = Field(32, ge=1)
    injection: Injection = "after"
    timesteps: Literal["clamped", "logit-normal"] = "clamped"
    epsilon: float = Field(0.05, ge=0)
    pixel_form: PixelForm = "noisy"
    guidance: float = 4.0
    offsets: bool = True
    text_controls: bool = True
    sampling_steps: int = Field(20, ge=1)
    name: str = "fluxir"
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"


class SteeredFlux(nn.Module):
    """What a Flux says while an adapter steers it, by the hooks of inference. The Flux is no submodule: it is neither trained nor saved
    with this module."""

    def __init__(self, flux: FluxTransformer2DModel, adapter: FluxAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self._held, self._hooks = (flux,), ExitStack()

    @cached_property
    def network(self) -> ControlledFlux:
        """Made at the first call, when the Flux has its device and dtype. Its hooks stay: checkpointed blocks run again in the backward
        pass, and have to be steered there too."""
        (flux,) = self._held
        return self._hooks.enter_context(controlled(flux, self.adapter, flux.dtype))

    def forward(self, z_t: Tensor, z_lq: Tensor, t: Tensor, prompt: Tensor, pooled: Tensor, guidance: Tensor) -> Tensor:
        """v [B, C, h, w] float32 of latents of that shape; t, guidance [B], the former in 0..1; prompt [B, N, D]; pooled [B, P]."""
        height, width = z_t.shape[-2:]
        ids = image_positions(height, width).to(z_t.device)
        tokens = self.network(pack_latent(z_t), prompt, pooled, t, guidance, pack_latent(z_lq), image_ids=ids)
        velocity = unpack_latent(tokens.float(), height, width)
        if self.adapter.config.injection == "after":
            # Text ends with the last block, so nothing hears its last control; processes that average gradients wait for one of each.
            _, silent = self.adapter.layers_of(len(self.adapter.se_p) - 1)
            velocity = velocity + 0 * sum(parameter.sum() for parameter in silent.parameters())
        return velocity


@dataclass(frozen=True)
class Drawn:
    """What a velocity is asked of: z_0, z_1 and the degraded latent [B, C, h, w], t [B] in 0..1."""

    clean: Tensor
    noise: Tensor
    degraded: Tensor
    t: Tensor


def steering_losses(
    model: nn.Module,
    drawn: Drawn,
    prompt: PromptEmbedding,
    guidance: float,
    decode: Callable[[Tensor], Tensor] | None,
    form: PixelForm,
) -> dict[str, Tensor]:
    """`velocity`, and where latents are decoded `pixel`. model: a SteeredFlux; prompt: rows 1 or B; decode: pictures in the decoder's
    -1..1 of a scaled latent."""
    clean, noise, t = drawn.clean, drawn.noise, drawn.t
    tokens, pooled = (part.to(clean.device).expand(len(clean), *part.shape[1:]) for part in told_by(prompt))
    velocity = model(FLOW.add_noise(clean, noise, t), drawn.degraded, t, tokens, pooled, torch.full_like(t, guidance))
    losses = {"velocity": velocity_loss(velocity, clean, noise)}
    if decode is not None:
        implied, expected = implied_latents(velocity, clean, noise, t, form)
        losses["pixel"] = decoded_loss(decode(implied), decode(expected))
    return losses


def told_by(prompt: PromptEmbedding) -> tuple[Tensor, Tensor]:
    """Tokens and pooled embedding, as Flux takes them."""
    assert prompt.pooled is not None
    return prompt.tokens, prompt.pooled


class FluxIrStage:
    """Losses: velocity and pixel."""

    Settings: ClassVar[type[Strict]] = FluxIrSettings
    turns: ClassVar[Turns] = {"adapter": ("velocity", "pixel")}

    def __init__(self, settings: FluxIrSettings) -> None:
        self.settings = settings
        self.base = base_parts("flux", settings.base)
        self.vae = self.base.vae
        self.captioned: PromptCache | None = None
        flux = cast("FluxTransformer2DModel", self.base.denoiser)
        self.adapter = FluxAdapter.from_transformer(
            flux, text_tokens=settings.text_tokens, rank=settings.rank, injection=settings.injection
        )
        if not settings.offsets:
            self.adapter.theta_p.requires_grad_(False)
            self.adapter.theta_y.requires_grad_(False)
        if not settings.text_controls:
            self.adapter.se_p.requires_grad_(False)
        self.model = SteeredFlux(flux, self.adapter)
        self.networks: dict[str, nn.Module] = {"adapter": self.model}
        self.frozen: dict[str, nn.Module] = {"flux": flux}

    @cached_property
    def prompt(self) -> PromptEmbedding:
        """The empty one, for the adapter and for Flux."""
        if self.base.prompts is None:
            raise RecipeError(
                "has no text encoders, which read the empty prompt.", where=f"settings.base: {self.settings.base}",
                way_out="Name a Flux with text_encoder and tokenizer folders.",
            )  # fmt: skip
        return self.base.prompts("")

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean, degraded = high_latent(self.vae, batch, sample=True), low_latent(self.vae, batch)
        drawn = Drawn(clean, torch.randn_like(clean), degraded, self._times(len(clean), clean.device))
        decode = self._decode if "pixel" in wanted else None
        losses = steering_losses(model, drawn, self.prompt, self.settings.guidance, decode, self.settings.pixel_form)
        return {name: losses[name] for name in wanted}

    def _times(self, count: int, device: torch.device) -> Tensor:
        if self.settings.timesteps == "logit-normal":
            return torch.randn(count, device=device).sigmoid()
        epsilon = self.settings.epsilon
        return clamped_times((1 + 2 * epsilon) * torch.rand(count, device=device) - epsilon)

    def _decode(self, latent: Tensor) -> Tensor:
        return as_pixels(self.vae.decode(latent))

    def output(self, batch: Batch) -> dict[str, Tensor]:
        degraded = low_latent(self.vae, batch)
        height, width = degraded.shape[-2:]
        sigmas = flux_sigmas(self.settings.sampling_steps, height * width // PATCH**2).to(degraded.device)
        options = Options(self.settings.sampling_steps, self.settings.guidance)
        *_, restored = sample(self.model.network, torch.randn_like(degraded), degraded, self.prompt, sigmas, options)
        return {"low_quality": batch.degraded, "restored": self.vae.decode(restored), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = (folder / f"{self.settings.name}{suffix}" for suffix in (".safetensors", ".md"))
        write_adapter(weights, self.adapter, DTYPES[self.settings.dtype])
        text.write_text(card, encoding="utf-8")
        return [weights, text]
