"""InstantIR, stage II: the Aggregator learns what to make of the degraded latent and its preview (equations 1 and 6)."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.methods.instantir import TRAINING_STEPS
from ...core.methods.instantir_networks import single_step
from ...core.models.aggregator import SHARED_WIDTH, Aggregator
from ...core.weights.files import write_weights
from ...core.weights.instantir_aggregator import KIND
from ..bases import base_parts
from ..data import Batch
from ..instantir_parts import FAMILY, DropRates, PerceptorSettings, Told, ground_of, trained_previewer
from ..latents import high_latent, low_latent
from ..losses import noise_loss
from ..recipe import Strict
from ..steered_unet import perceived
from .base import Turns


class InstantIrAggregatorSettings(PerceptorSettings):
    """previewer: what its distillation exported, or a name that Load Previewer offers. shared_width: inside the feature transforms."""

    previewer: str
    shared_width: int = Field(SHARED_WIDTH, ge=1)
    drop: DropRates = DropRates(text=0.85, both=0.15)


class InstantIrAggregatorStage:
    """A copy of SDXL's encoder, whose residuals start at zero; everything else is frozen."""

    Settings: ClassVar[type[Strict]] = InstantIrAggregatorSettings
    turns: ClassVar[Turns] = {"aggregator": ("noise",)}

    def __init__(self, settings: InstantIrAggregatorSettings) -> None:
        self.settings = settings
        base = base_parts(FAMILY, settings.prior)
        unet: Any = base.denoiser
        self.aggregator = Aggregator(deepcopy(unet), shared_width=settings.shared_width)
        self.config = base.config
        self.ground = ground_of(settings, base)
        self.vae, self.schedule, self.captioned = base.vae, base.schedule, self.ground.captioned
        self.previewer = trained_previewer(self.ground.steered, settings.previewer)
        self.networks: dict[str, nn.Module] = {"aggregator": self.aggregator}
        self.frozen: dict[str, nn.Module] = {
            "unet": self.ground.steered,
            "encoder": self.ground.encoder,
            "previewer": self.previewer,
        }

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean, degraded = high_latent(self.vae, batch, sample=True), low_latent(self.vae, batch, sample=True)
        noise, timestep = torch.randn_like(clean), torch.randint(TRAINING_STEPS, clean.shape[:1], device=clean.device)
        z_t = self.schedule.add_noise(clean, noise, timestep)
        told, shown = self.ground.dropped(batch)
        with torch.no_grad():
            tokens = perceived(self.ground.encoder, shown)
            preview = self._preview(z_t, timestep, told, tokens)
        residuals = model(degraded, preview, timestep, told.pooled, told.size_ids)
        return {"noise": noise_loss(self.ground.steered(z_t, timestep, *told, tokens, *residuals), noise)}

    def _preview(self, z_t: Tensor, timestep: Tensor, told: Told, tokens: Tensor) -> Tensor:
        """Without guidance."""
        return single_step(self.schedule, z_t, self.previewer(z_t, timestep, *told, tokens), timestep)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        restored = self.ground.restored(batch, self.previewer, self.aggregator)
        return {"low_quality": batch.degraded, "restored": restored, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"
        config = {"kind": KIND, "unet": self.config, "shared_width": self.settings.shared_width}
        write_weights(weights, dict(self.aggregator.state_dict()), config)
        text.write_text(card)
        return [weights, text]
