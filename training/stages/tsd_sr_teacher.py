"""TSD-SR's teacher: Stable Diffusion 3 with an adapter that is trained on clean pictures by the prior's own loss.

The release distils from such a teacher, whose training it does not show; the paper from the prior itself. Latents are those that
distillation will show it: SD3's shift is left out, which the adapter can make up for.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.diffusion import shifted_sigmas
from ...core.models.prompt import PromptEmbedding
from ...core.weights.tsd_sr import FAMILY, TRANSFORMER_TARGETS
from ..bases import base_parts
from ..data import Batch
from ..denoisers import denoised, predict
from ..latents import high_latent
from ..losses import denoising_loss
from ..recipe import Strict
from ..tsd_sr_export import write_adapter
from ..tsd_sr_networks import STEPS, adapt, embed, latent_offset, prompt_cache, published_factors, sd3_velocity
from .base import Turns

# Shown in validation: the clean picture as it is estimated at these timesteps.
SHOWN = (250, 500, 750)


class TsdSrTeacherSettings(Strict):
    """base, rank: as in the stage tsd-sr. captions: whether it is told those of the pictures; drop: the share of pictures that it is told
    nothing of, for guidance."""

    base: str = "auto"
    rank: int = Field(64, ge=1)
    captions: bool = True
    drop: float = Field(0.1, ge=0, le=1)
    name: str = "teacher"


class TsdSrTeacherStage:
    """One adapter by one loss."""

    Settings: ClassVar[type[Strict]] = TsdSrTeacherSettings
    turns: ClassVar[Turns] = {"teacher": ("denoising",)}

    def __init__(self, settings: TsdSrTeacherSettings) -> None:
        self.settings = settings
        self.base = base_parts(FAMILY, settings.base)
        self.vae, self.schedule = self.base.vae, self.base.schedule
        self.teacher = adapt(self.base.denoiser, TRANSFORMER_TARGETS, settings.rank)
        self.prompts, self.sigmas = prompt_cache(self.base, settings.base, settings.captions), shifted_sigmas(STEPS)
        self.captioned = self.prompts if settings.captions else None
        self.networks: dict[str, nn.Module] = {"teacher": self.teacher}
        self.frozen: dict[str, nn.Module] = {"base": self.base.denoiser}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = self._clean(batch)
        sigma = self.sigmas[torch.randint(STEPS, (len(clean),))].to(clean.device)
        eps = torch.randn_like(clean)
        velocity = sd3_velocity(model, self.schedule.add_noise(clean, eps, STEPS * sigma), sigma, self._prompt(batch, self.settings.drop))
        return {"denoising": denoising_loss(velocity, eps - clean)}

    def _clean(self, batch: Batch) -> Tensor:
        return high_latent(self.vae, batch, sample=True) + latent_offset(self.vae)

    def _prompt(self, batch: Batch, drop: float) -> PromptEmbedding:
        dropped = (torch.rand(len(batch.names)) < drop).tolist()
        told = zip(batch.captions, dropped, strict=True)
        texts = [caption if self.settings.captions and not is_dropped else "" for caption, is_dropped in told]
        return embed(self.prompts, texts, batch.high_quality.device)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        clean, prompt = self._clean(batch), self._prompt(batch, 0.0)

        def shown(level: int) -> Tensor:
            said = partial(predict, FAMILY, self.teacher, prompt=prompt)
            return self.vae.decode(denoised(self.schedule, clean, level, said, "velocity") - latent_offset(self.vae))

        return {**{f"denoised from {level}": shown(level) for level in SHOWN}, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        """The adapter as the stage tsd-sr reads it."""
        weights, text = folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"
        write_adapter(weights, published_factors(self.teacher))
        text.write_text(card)
        return [weights, text]
