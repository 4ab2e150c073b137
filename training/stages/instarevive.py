"""InstaRevive: a one-step restorer by dynamic score matching ("InstaRevive: One-Step Image Enhancement via Dynamic Score Matching").

Three copies of one prior: the generator, the frozen real score network and the trained fake one. The generator answers to the clean
picture, by alpha, and to the difference of the two scores, by 1 - alpha (equation 5); alpha and the range of the noise shrink as it
comes nearer (equations 6 and 7). Recipes decide which regression it is: LPIPS is the paper's. Without `score` it stands alone.
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ...core.folders import user_data_directory
from ...core.methods.instarevive import PRESETS, MaskMode, OneStepConstants, as_attention_mask, latent_passing_conv
from ...core.models.prompt import PromptEmbedding
from ..bases import base_parts
from ..data import Batch
from ..dynamic_control import DistanceMode, distance, draw_timesteps, largest_timestep, noise_levels, regression_share
from ..image_prompt import ImagePromptSettings, read_image_prompt
from ..instarevive_parts import NoisePredictor, coarse_restorer, start_from, student_of, write_student, write_vae
from ..latents import high_latent, low_latent
from ..losses import (
    denoising_loss,
    dsm_gradient,
    dynamic_losses,
    guided,
    normalised_gradient,
    score_gradient,
    with_gradient,
    with_summed_gradient,
)
from ..lpips import read_lpips
from ..prompts import PromptCache
from ..recipe import Strict
from ..regression import perceptual_loss, regression_losses
from .base import Turns

# Timesteps of the score networks' schedule.
STEPS = 1000
SCALINGS = {"mean": with_gradient, "sum": with_summed_gradient}


class InstaReviveSettings(Strict):
    """family, base: the prior that is copied three times, as base_parts() takes it; a U-Net's student is written as GenDR's. start: what
    the generator begins with instead, a student's file or its name in Load One-Step Generator. task: whose prompt of the release it is
    told, `none` for no text; captions: whether pictures that have one are told their own. timestep, mask_mode, largest_side: the
    student's constants. input: the degraded latent alone, as `published`, or with noise, as in the `paper`. coarse: what restores
    first, a SwinIR's file or its name in Pre-Restore.

    guidance: of the real score network. dynamic: whether range and shares follow the distance; where not, noise is drawn from the whole
    range and alpha stays. weighting: which form of equation 5 the output receives; scaling: its mean over all elements, or its sum over
    those of a sample. lpips: folder of its weights. identity: an image prompt for the real score network, the degraded picture.
    border: pixels of reflection that restoring adds around a window.
    """

    family: Literal["pixart-alpha", "sd21-vae16"] = "pixart-alpha"
    base: str = "embedded"
    start: str | None = None
    task: Literal["photo", "face", "cartoon", "inpainting", "low light", "none"] = "photo"
    captions: bool = False
    timestep: int = 400
    mask_mode: MaskMode = "bias"
    largest_side: int | None = None
    input: Literal["published", "paper"] = "published"
    coarse: str | None = None
    guidance: float = 3.0
    dynamic: bool = True
    alpha: float = Field(0.5, ge=0, le=1)
    kappa: float = Field(1.5, gt=0)
    distance: DistanceMode = "rms"
    weighting: Literal["normalised", "equation 5", "score"] = "normalised"
    scaling: Literal["mean", "sum"] = "mean"
    lpips: Path | None = None
    identity: ImagePromptSettings | None = None
    border: int = 0
    name: str = "instarevive"

    @model_validator(mode="after")
    def _require_possible_input(self) -> InstaReviveSettings:
        if self.input == "paper" and self.family != "pixart-alpha":
            raise ValueError("input is `paper`, but only PixArt's student takes noise")
        return self


class InstaReviveStage:
    """The generator's turn, then the fake score network's on what the generator made."""

    Settings: ClassVar[type[Strict]] = InstaReviveSettings
    turns: ClassVar[Turns] = {"generator": ("lpips", "pixel", "gradient", "latent", "score"), "fake": ("denoising",)}

    def __init__(self, settings: InstaReviveSettings) -> None:
        self.settings = settings
        self.base = base_parts(settings.family, settings.base)
        self.vae, self.schedule = self.base.vae, self.base.schedule
        self.constants = OneStepConstants(settings.timestep, settings.mask_mode, settings.input == "paper", settings.largest_side)
        self.real = NoisePredictor(settings.family, self.base.denoiser)
        self.fake, self.generator = copy.deepcopy(self.real), copy.deepcopy(self.real)
        if self.constants.noise_input:
            self.generator.concat_conv = latent_passing_conv(self.vae.codec.channels)
        if settings.start is not None:
            start_from(self.generator, settings.start)
        self.lpips = read_lpips(settings.lpips) if settings.lpips else None
        self.coarse = coarse_restorer(settings.coarse) if settings.coarse else None
        self.identity = read_image_prompt(self.base.denoiser, settings.identity) if settings.identity else None
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "fake": self.fake}
        parts = {"real": self.real, "lpips": self.lpips, "coarse": self.coarse, "identity": self.identity}
        self.frozen: dict[str, nn.Module] = {name: part for name, part in parts.items() if part is not None}

    @cached_property
    def prompts(self) -> PromptCache:
        """On disk where there may be many captions."""
        folder = user_data_directory() / "prompts" if self.settings.captions else None
        return PromptCache(self.base.prompts, f"{self.settings.family} {self.settings.base}", folder)

    @property
    def captioned(self) -> PromptCache | None:
        """Where pictures are told their own captions."""
        return self.prompts if self.settings.captions else None

    @cached_property
    def noise_levels(self) -> Tensor:
        """s_t [T]."""
        return noise_levels(self.schedule, STEPS)

    @property
    def text(self) -> str:
        """The prompt of the task."""
        return PRESETS.get(self.settings.task, "")

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        if turn == "fake":
            return {"denoising": self._denoising(model, batch, memory)}
        restored = self._restored(model, batch)
        memory["restored"] = restored.detach()
        clean = high_latent(self.vae, batch)
        regression = regression_losses(restored, clean, batch.high_quality, self.vae, wanted, perceptual_loss(self.lpips))
        if "score" not in wanted:
            return regression
        t_max, alpha = self._control(restored.detach(), clean)
        score = SCALINGS[self.settings.scaling](restored, self._gradient(restored.detach(), t_max, batch))
        return dynamic_losses(regression, score, alpha)

    def _restored(self, model: nn.Module, batch: Batch) -> Tensor:
        """x = G(x_LQ, y) [B, C, h, w], by one step at the student's timestep."""
        latent = low_latent(self.vae, batch) if self.coarse is None else self.vae.encode(self.coarse(batch.degraded))
        noise = torch.randn_like(latent) if self.constants.noise_input else None
        timesteps = torch.full((latent.shape[0],), self.constants.timestep, device=latent.device)
        return self.schedule.clean(latent, model(latent, timesteps, self._prompt(batch), noise), timesteps, "epsilon")

    def _control(self, restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """T_max and alpha, both []: of the distance, or without dynamic control the last timestep and a constant."""
        settings = self.settings
        if not settings.dynamic:
            return torch.tensor(STEPS - 1, device=restored.device), torch.tensor(settings.alpha, device=restored.device)
        levels = self.noise_levels.to(restored.device)
        t_max = largest_timestep(levels, settings.kappa * distance(restored, clean, settings.distance))
        return t_max, regression_share(t_max, STEPS)

    @torch.no_grad()
    def _gradient(self, x: Tensor, t_max: Tensor, batch: Batch) -> Tensor:
        """Equation 5 at x [B, C, h, w], in the weighting of the settings; t within 0.02 T_max .. T_max."""
        t = draw_timesteps(torch.rand(x.shape[0], device=x.device, dtype=torch.float64), t_max)
        x_t = self.schedule.add_noise(x, torch.randn_like(x), t)
        real, fake = self._real(x_t, t, batch), self.fake(x_t, t, self._prompt(batch))
        if self.settings.weighting == "normalised":
            return normalised_gradient(x, *(self.schedule.clean(x_t, eps, t, "epsilon") for eps in (real, fake)))
        weighted = dsm_gradient if self.settings.weighting == "equation 5" else score_gradient
        return weighted(real, fake, self.schedule.noise(t))

    def _real(self, x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """eps_real under guidance; one call of 2 B rows, the first half without a prompt."""
        texts = ["" for _ in batch.names] + self._texts(batch)
        said = (x_t.repeat(2, 1, 1, 1), t.repeat(2), self._embedded(texts, x_t.device))
        if self.identity is None:
            both = self.real(*said)
        else:
            with self.identity.on(self.identity.tokens(batch.degraded)):
                both = self.real(*said)
        null, conditional = both.chunk(2)
        return guided(null, conditional, self.settings.guidance)

    def _denoising(self, model: nn.Module, batch: Batch, memory: dict[str, Tensor]) -> Tensor:
        """L_DM of the fake score network (equation 2) on what the generator made of this batch."""
        with torch.no_grad():
            x = memory["restored"] if "restored" in memory else self._restored(self.generator, batch)
        t, noise = torch.randint(STEPS, (x.shape[0],), device=x.device), torch.randn_like(x)
        return denoising_loss(model(self.schedule.add_noise(x, noise, t), t, self._prompt(batch)), noise)

    def _prompt(self, batch: Batch) -> PromptEmbedding:
        return self._embedded(self._texts(batch), batch.high_quality.device)

    def _texts(self, batch: Batch) -> list[str]:
        return [caption if self.settings.captions and caption else self.text for caption in batch.captions]

    def _embedded(self, texts: list[str], device: torch.device) -> PromptEmbedding:
        """Tokens [B, N, D] of the texts, and the mask as the network takes it."""
        found = self.prompts.batch(texts)
        mask = None if found.mask is None else as_attention_mask(found.mask.to(device), self.constants.mask_mode)
        return PromptEmbedding(found.tokens.to(device), mask=mask)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        coarse = {} if self.coarse is None else {"coarse": self.coarse(batch.degraded)}
        restored = self.vae.decode(self._restored(self.generator, batch))
        return {"low_quality": batch.degraded, **coarse, "restored": restored, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        settings, files = self.settings, [folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"]
        student = student_of(self.generator, self.prompts.batch([self.text]), self.constants, self.schedule)
        own: list[Path] = [] if settings.base == "embedded" else [folder / "vae.safetensors"]
        for path in own:
            write_vae(path, self.vae)
        write_student(files[0], student, self.base, own[0].name if own else "embedded", settings.border)
        files[1].write_text(card)
        return [*files, *own]
