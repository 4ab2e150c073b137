"""TSD-SR: a one-step restorer distilled from Stable Diffusion 3 by target score distillation (arXiv 2411.18263).

One frozen prior carries every adapter. The student is its transformer with one and its VAE's encoder with another. It answers to the
clean picture (equation 7) and to what two score networks say of its latent and of the clean one, at one noise level (`tsd`, equation 5)
or along a trajectory (`dasm`, equation 6). The auxiliary network is the transformer with a third adapter, which learns the flow of what
the student makes (equation 9). Weights of the losses are the paper's gammas; its two phases are the recipe's.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ...core.diffusion import shifted_sigmas
from ...core.models.prompt import PromptEmbedding
from ...core.weights.tsd_sr import FAMILY, TRANSFORMER_TARGETS, VAE_TARGETS
from ..bases import base_parts
from ..data import Batch
from ..latents import high_latent
from ..losses import with_gradient
from ..lpips import read_lpips
from ..recipe import Strict
from ..regression import perceptual_loss, regression_losses
from ..tsd_sr_export import write_published, write_whole
from ..tsd_sr_losses import (
    Weighting,
    auxiliary_loss,
    auxiliary_weighting,
    follow_trajectory,
    point_weights,
    trajectory_indices,
    tsd_direction,
    tsm_direction,
    vsd_direction,
)
from ..tsd_sr_networks import (
    AUXILIARY_TARGETS,
    STEPS,
    Encoding,
    Guidance,
    Student,
    adapt,
    embed,
    prompt_cache,
    read_adapter,
    sd3_velocity,
    unprompted,
)
from .base import Turns

PROMPT = (
    "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper detailed photo - realistic maximum detail, 32k, "
    "Color Grading, ultra HD, extrememeticulous detailing, skin pore detailing, hyper sharpness, perfect without deformations."
)


class TsdSrSettings(Strict):
    """base: the prior, as base_parts() takes it. rank: of the student's two adapters and of the teacher's. teacher: file of an adapter of
    the teacher, as the stage tsd-sr-teacher exports it; null for the prior itself. prompt: the student's; captions: whether the score
    networks are told the pictures'. timestep: the student's, 1000 times the noise level that it takes its input to be at.

    first_index, last_index: where the noise levels of distillation are drawn from, of the prior's 1000. shares: weights of the points of a
    trajectory, as many as it has; stride: indices from one to the next; random_stretch: whether a trajectory is longer or shorter by up
    to half a stride. balance: lambda of equation 5, 1 for VSD alone and 0 for TSM. guidance: of both score networks. weighting: of the
    auxiliary loss. lpips: folder of its weights. layout: of what is exported, the release's adapters or one file with all merged. border:
    pixels of reflection that restoring adds around a window.
    """

    base: str = "auto"
    rank: int = Field(64, ge=1)
    auxiliary_rank: int = Field(64, ge=1)
    teacher: Path | None = None
    prompt: str = PROMPT
    captions: bool = True
    timestep: float = Field(1000.0, gt=0, le=STEPS)
    first_index: int = Field(50, ge=0, lt=STEPS)
    last_index: int = Field(949, ge=0, lt=STEPS)
    shares: tuple[float, ...] = Field((1.0, 0.3, 0.3, 0.3), min_length=1)
    stride: int = Field(50, ge=1)
    random_stretch: bool = True
    balance: float = Field(0.7, ge=0, le=1)
    guidance: float = 7.5
    weighting: Weighting = "logit-normal"
    lpips: Path | None = None
    layout: Literal["published", "whole"] = "published"
    border: int = 0
    name: str = "tsd-sr"

    @model_validator(mode="after")
    def _require_place(self) -> TsdSrSettings:
        if self.layout == "published" and self.timestep != STEPS:
            raise ValueError(f"the published layout has no place for a timestep of {self.timestep:g}; take layout: whole")
        return self


class TsdSrStage:
    """The student's turn, then the auxiliary network's on what the student made."""

    Settings: ClassVar[type[Strict]] = TsdSrSettings
    turns: ClassVar[Turns] = {"student": ("lpips", "pixel", "gradient", "latent", "tsd", "dasm"), "auxiliary": ("auxiliary",)}

    def __init__(self, settings: TsdSrSettings) -> None:
        self.settings = settings
        self.base = base_parts(FAMILY, settings.base)
        self.vae, self.schedule = self.base.vae, self.base.schedule
        self.method, self.encoding = unprompted(self.base, settings.timestep), Encoding(self.vae)
        self.student = Student(adapt(self.encoding, VAE_TARGETS, settings.rank), adapt(self.method, TRANSFORMER_TARGETS, settings.rank))
        self.auxiliary = adapt(self.base.denoiser, AUXILIARY_TARGETS, settings.auxiliary_rank)
        self.lpips = read_lpips(settings.lpips) if settings.lpips else None
        self.prompts, self.sigmas = prompt_cache(self.base, settings.base, settings.captions), shifted_sigmas(STEPS)
        self.captioned = self.prompts if settings.captions else None
        self.networks: dict[str, nn.Module] = {"student": self.student, "auxiliary": self.auxiliary}
        self.frozen: dict[str, nn.Module] = {"base": self.method, **({"lpips": self.lpips} if self.lpips else {})}
        self.teacher = self.base.denoiser
        if settings.teacher is not None:
            adapted = adapt(self.base.denoiser, TRANSFORMER_TARGETS, settings.rank)
            self.teacher = self.frozen["teacher"] = read_adapter(adapted, settings.teacher)

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        if turn == "auxiliary":
            return {"auxiliary": self._auxiliary(model, batch, memory)}
        restored = self._restored(model, batch)
        memory["restored"] = restored.detach()
        clean = high_latent(self.vae, batch, sample=True)
        found: dict[str, Tensor] = {}
        for name, shares in (("tsd", (1.0,)), ("dasm", self.settings.shares)):
            if name in wanted:
                found[name] = with_gradient(restored, self._direction(restored.detach(), clean, batch, shares))
        perceptual = perceptual_loss(self.lpips, clamped=True)  # as the release
        return {**found, **regression_losses(restored, clean, batch.high_quality, self.vae, wanted, perceptual)}

    def _restored(self, model: nn.Module, batch: Batch) -> Tensor:
        """z^ [B, C, h, w] from a sample of the posterior, as the student is used."""
        self._tell_prompt()
        restored: Tensor = model(batch.degraded, self.encoding.noise_for(batch.degraded))
        return restored

    def _tell_prompt(self) -> None:
        """Encode the student's prompt when it is first needed."""
        if not self.method.prompt.numel():
            told = self.method.with_prompt(embed(self.prompts, [self.settings.prompt], self.method.prompt.device))
            self.method.prompt, self.method.pooled = told.prompt, told.pooled

    @torch.no_grad()
    def _direction(self, restored: Tensor, clean: Tensor, batch: Batch, shares: tuple[float, ...]) -> Tensor:
        """Equation 5 at z^, along as many points as there are shares; every sample at noise levels of its own.

        The student is not asked here, so that nothing of the graph is lost: the loss that takes this for its gradient has one.
        """
        sigmas = self._trajectory(len(restored), shares).to(restored.device)
        eps = torch.randn_like(restored)
        student, target = (self.schedule.add_noise(self._seen(latent), eps, STEPS * sigmas[:, 0]) for latent in (restored, clean))
        null = embed(self.prompts, [""] * len(restored), restored.device)
        guidance = Guidance(self._captions(batch), null, self.settings.guidance)
        points = follow_trajectory(student, target, sigmas, guidance.of(self.teacher), guidance.of(self.auxiliary))
        weights = point_weights(points, shares)
        return tsd_direction(vsd_direction(points, weights), tsm_direction(points, weights), self.settings.balance)

    def _trajectory(self, rows: int, shares: tuple[float, ...]) -> Tensor:
        """Noise levels [rows, points + 1]."""
        settings, half = self.settings, self.settings.stride // 2
        stretch = torch.randint(-half, half, (rows,)) if settings.random_stretch and half and len(shares) > 1 else 0
        return self.sigmas[trajectory_indices(self._places(rows), len(shares), settings.stride, STEPS - 1, stretch)]

    def _places(self, rows: int) -> Tensor:
        return torch.randint(self.settings.first_index, self.settings.last_index + 1, (rows,))

    def _auxiliary(self, model: nn.Module, batch: Batch, memory: dict[str, Tensor]) -> Tensor:
        """The flow of the student's latents, by the estimate that it makes of them."""
        if "restored" not in memory:
            with torch.no_grad():
                memory["restored"] = self._restored(self.student, batch)
        latent = self._seen(memory["restored"])
        sigma = self.sigmas[self._places(len(latent))].to(latent.device)
        noised = self.schedule.add_noise(latent, torch.randn_like(latent), STEPS * sigma)
        velocity = sd3_velocity(model, noised, sigma, self._captions(batch))
        clean = self.schedule.clean(noised, velocity, STEPS * sigma, "velocity")
        draw = torch.randn_like(sigma) if self.settings.weighting == "logit-normal" else torch.rand_like(sigma)
        return auxiliary_loss(clean, latent, auxiliary_weighting(self.settings.weighting, draw, sigma))

    def _seen(self, latent: Tensor) -> Tensor:
        """What the release's networks take a scaled latent to be: SD3's shift is left out there."""
        return latent + self.method.constants.latent_offset

    def _captions(self, batch: Batch) -> PromptEmbedding:
        texts = [caption if self.settings.captions else "" for caption in batch.captions]
        return embed(self.prompts, texts, batch.high_quality.device)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        """The restored picture by the posterior's mean."""
        self._tell_prompt()
        restored = self.student(batch.degraded, torch.zeros_like(self.encoding.noise_for(batch.degraded)))
        return {"low_quality": batch.degraded, "restored": self.vae.decode(restored), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        self._tell_prompt()
        if self.settings.layout == "published":
            files = write_published(folder, self.student, self.method, self.auxiliary)
        else:
            path, own_vae = folder / f"{self.settings.name}.safetensors", self.settings.base != "embedded"
            files = write_whole(path, self.student, self.method, self.base, self.settings.border, own_vae)
        text = folder / f"{self.settings.name}.md"
        text.write_text(card)
        return [*files, text]
