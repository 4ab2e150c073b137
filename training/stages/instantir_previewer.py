"""InstantIR, stage I: the Previewer learns to jump from any noise to what a guided teacher would reach (equation 5).

Teacher and student are one U-Net, the student with an adapter on it. One DDIM step of the teacher leads from z_s to z_t, and what the
student says of both must agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.methods.instantir_networks import single_step
from ...core.weights.files import write_weights
from ...core.weights.previewer import KIND, RANK, previewer_tensors
from ..bases import base_parts
from ..data import Batch
from ..instantir_parts import FAMILY, PerceptorSettings, Told, ground_of, new_previewer
from ..latents import high_latent
from ..losses import TEACHER_STEPS, distillation_loss, teacher_interval, teacher_step
from ..recipe import Strict
from ..steered_unet import perceived
from .base import Turns

SHOWN = (250, 500, 750)


class InstantIrPreviewerSettings(PerceptorSettings):
    """rank: of the adapter. guidance: of the teacher, drawn evenly between both."""

    rank: int = Field(RANK, ge=1)
    guidance: tuple[float, float] = (3.0, 15.0)


class InstantIrPreviewerStage:
    """A low-rank adapter of the U-Net, its image branch and the Resampler."""

    Settings: ClassVar[type[Strict]] = InstantIrPreviewerSettings
    turns: ClassVar[Turns] = {"previewer": ("distillation",)}

    def __init__(self, settings: InstantIrPreviewerSettings) -> None:
        self.settings = settings
        base = base_parts(FAMILY, settings.prior)
        self.ground = ground_of(settings, base)
        self.vae, self.schedule, self.captioned = base.vae, base.schedule, self.ground.captioned
        self.previewer = new_previewer(self.ground.steered, settings.rank)
        self.networks: dict[str, nn.Module] = {"previewer": self.previewer}
        self.frozen: dict[str, nn.Module] = {"unet": self.ground.steered, "encoder": self.ground.encoder}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = high_latent(self.vae, batch)
        s, t = teacher_interval(torch.randint(1, TEACHER_STEPS + 1, clean.shape[:1], device=clean.device))
        z_s = self.schedule.add_noise(clean, torch.randn_like(clean), s)
        size_ids, shown = self.ground.size_ids(batch), self.ground.shown(batch)
        silent = self.ground.told([""] * len(batch.names), size_ids)
        with torch.no_grad():
            tokens, blank = (perceived(self.ground.encoder, rows) for rows in (shown, torch.zeros_like(shown)))
            z_t = self._taught(z_s, s, t, self.ground.told(self.ground.captions(batch), size_ids), silent, tokens, blank)
            target = self._preview(model, z_t, t, silent, tokens)
        return {"distillation": distillation_loss(self._preview(model, z_s, s, silent, tokens), target)}

    def _taught(self, z_s: Tensor, s: Tensor, t: Tensor, told: Told, silent: Told, tokens: Tensor, blank: Tensor) -> Tensor:
        """z_t by the teacher, the U-Net without the adapter."""
        low, high = self.settings.guidance
        guidance = low + (high - low) * torch.rand(s.shape, device=s.device)
        conditional, unconditional = self.ground.steered(z_s, s, *told, tokens), self.ground.steered(z_s, s, *silent, blank)
        return teacher_step(self.schedule, z_s, conditional, unconditional, s, t, guidance)

    def _preview(self, model: nn.Module, z: Tensor, timestep: Tensor, told: Told, tokens: Tensor) -> Tensor:
        """c_out x_0 + c_skip z."""
        return single_step(self.schedule, z, model(z, timestep, *told, tokens), timestep)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        """Previews from the noised clean picture."""
        clean = high_latent(self.vae, batch)
        told = self.ground.told([""] * len(batch.names), self.ground.size_ids(batch))
        tokens = perceived(self.ground.encoder, self.ground.shown(batch))
        columns = {}
        for level in SHOWN:
            timestep = torch.full(clean.shape[:1], level, device=clean.device)
            z = self.schedule.add_noise(clean, torch.randn_like(clean), timestep)
            columns[f"preview from {level}"] = self.vae.decode(self._preview(self.previewer, z, timestep, told, tokens))
        return {"low_quality": batch.degraded, **columns, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"
        write_weights(weights, previewer_tensors(self.previewer.factors(), self.ground.unet), {"kind": KIND})
        text.write_text(card)
        return [weights, text]
