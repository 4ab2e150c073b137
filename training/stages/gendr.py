"""GenDR: a one-step restorer distilled from SD2.1-VAE16 by consistent score identity distillation (CiD), which an adversarial loss and
representation alignment join in CiDA.

"GenDR: Lightning Generative Detail Restorator", section 4. One frozen base carries two adapters, the real and the fake score network;
without them it is the discriminator's backbone. VSD, SiD, CiD and CiDA differ in which losses a recipe weighs: VSD and SiD take the plain
base for the real score network.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...core.errors import RecipeError
from ...core.methods.gendr import OneStepConstants
from ...core.weights.gendr import FAMILY
from ..bases import base_parts
from ..data import Batch
from ..features import features_of
from ..gendr_export import Student, write_published, write_whole
from ..gendr_networks import Restoring, Start, adapter_tensors, constants_of_v, score_adapter, start_of_base, start_of_file
from ..gendr_scores import Scores
from ..latents import high_latent, low_latent
from ..losses import (
    adversarial_loss,
    cid_loss,
    discriminator_loss,
    representation_loss,
    score_loss,
    sid_loss,
    vsd_gradient,
    with_gradient,
)
from ..patch_heads import PatchHeads, discriminated_blocks
from ..prompts import PromptCache
from ..recipe import Strict
from ..regression import regression_losses
from ..representation import projector, read_teacher, teacher_tokens
from .base import Turns

POSITIVE = (
    "realism photo, best quality, realistic detailed, clean, high-resolution, best quality, smooth plain area, high-fidelity, clear edge, "
    "clean details without messy patterns, high-resolution, no noise, high-fidelity, 4K, 8K, perfect without deformations, photo taken in "
    "the style of Canon EOS –style raw"  # noqa: RUF001 (the paper's dash)
)
NEGATIVE = "oil painting, cartoon, blur, dirty, messy, low quality, deformation, low resolution, over-smooth"


class GendrSettings(Strict):
    """base: as base_parts() takes it; prediction: what that network tells. generator: `base`, `embedded`, or a student's file. alpha,
    beta, timestep: of equation (2), for a generator that begins as the base; one of a file has its own. against: the prompt that guidance
    kappa leads away from. first_t, last_t: timesteps of the score networks. teacher: DINOv2 for the loss `repa`, as read_teacher() takes
    it. layout: of what is exported, GenDR's own files or one with its prompt."""

    base: str = "auto"
    prediction: Literal["epsilon", "v"] = "epsilon"
    generator: str = "base"
    alpha: float = 0.5
    beta: float = 0.5
    timestep: int = 500
    positive: str = POSITIVE
    negative: str = NEGATIVE
    against: Literal["empty", "negative"] = "empty"
    kappa: float = 1.5
    xi: float = 1.0
    first_t: int = 20
    last_t: int = 979
    lora_rank: int = 64
    lora_alpha: float = 128
    head_width: int = 256
    head_groups: int = 32
    teacher: str | None = None
    projector_width: int = 2048
    layout: Literal["published", "whole"] = "published"
    name: str = "generator"


class GendrStage:
    """A generator, two score networks and the heads of a discriminator take turns."""

    Settings: ClassVar[type[Strict]] = GendrSettings
    turns: ClassVar[Turns] = {
        "generator": ("vsd", "sid", "cid", "adversarial", "repa", "latent", "pixel", "gradient"),
        "fake": ("fake", "fake_noise"),
        "real": ("real",),
        "discriminator": ("discriminator",),
    }

    def __init__(self, settings: GendrSettings) -> None:
        self.settings = settings
        base = base_parts(FAMILY, settings.base)
        self.base: Any = base.denoiser
        self.vae, self.schedule = base.vae, base.schedule
        self.prompts = PromptCache(base.prompts, f"{FAMILY} {settings.base}", None)
        self.captioned: PromptCache | None = None
        self.start = self._start()
        self.teacher = read_teacher(settings.teacher) if settings.teacher else None
        width = self.start.unet.config["block_out_channels"][0]
        aligned = projector(width, settings.projector_width, self.teacher.config.hidden_size) if self.teacher is not None else None
        self.generator = Restoring(self.start.unet, self.start.constants, aligned)
        self.fake, self.real = (score_adapter(self.base, settings.lora_rank, settings.lora_alpha) for _ in range(2))
        self.heads = PatchHeads(discriminated_blocks(base.config), settings.head_width, settings.head_groups)
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator, "fake": self.fake, "real": self.real, "discriminator": self.heads,
        }  # fmt: skip
        self.frozen: dict[str, nn.Module] = {"base": self.base}
        if self.teacher is not None:
            self.frozen["teacher"] = self.teacher

    def _start(self) -> Start:
        settings = self.settings
        if settings.generator != "base":
            return start_of_file(settings.generator)
        constants = OneStepConstants(settings.alpha, settings.beta, settings.timestep)
        return start_of_base(self.base, constants_of_v(constants, self.schedule) if settings.prediction == "v" else constants)

    @cached_property
    def scores(self) -> Scores:
        """The base's prompts, encoded when they are first needed."""
        settings = self.settings
        told = self.prompts.batch([settings.positive, "" if settings.against == "empty" else settings.negative]).tokens
        positive, null = told.to(self.base.device, self.base.dtype).chunk(2)
        return Scores(self.schedule, positive, null, settings.kappa, settings.prediction)

    @cached_property
    def prompt(self) -> Tensor:
        """[1, N, D]: the generator's."""
        own = self.start.prompt
        return self.prompts.batch([self.settings.positive]).tokens.to(self.base.device) if own is None else own.to(self.base.device)

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        takers = {"generator": self._generator, "fake": self._fake, "real": self._real, "discriminator": self._discriminator}
        found = takers[turn](model, batch, wanted, memory)
        return {name: loss for name, loss in found.items() if name in wanted}

    # --- the generator's turn: equation 11, and the losses that it is compared with

    def _generator(self, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        restored, tokens = model(low_latent(self.vae, batch), self.prompt, "repa" in wanted)
        restored, clean = restored.float(), high_latent(self.vae, batch)
        memory["restored"] = restored.detach()
        found = regression_losses(restored, clean, batch.high_quality, self.vae, wanted)
        if wanted & {"vsd", "sid", "cid", "adversarial"}:
            found |= self._distilled(restored, clean, wanted, memory)
        if "repa" in wanted:
            found["repa"] = self._represented(tokens, batch, restored)
        return found

    def _distilled(self, restored: Tensor, clean: Tensor, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients flow through z_t into the score networks, whose weights are frozen in this turn."""
        scores = self.scores
        t, noise = self._drawn(restored, memory)
        z_t = self.schedule.add_noise(restored, noise, t)
        found: dict[str, Tensor] = {}
        if "vsd" in wanted:
            with torch.no_grad():
                gradient = vsd_gradient(scores.noise(self.base, z_t, t), scores.noise(self.fake, z_t, t))
            found["vsd"] = with_gradient(restored, gradient)
        if "sid" in wanted:
            found["sid"] = sid_loss(scores.noise(self.base, z_t, t), scores.noise(self.fake, z_t, t), noise, self.settings.xi)
        if "cid" in wanted:
            told, faked = scores.guided_clean(self.real, z_t, t), scores.guided_clean(self.fake, z_t, t)
            found["cid"] = cid_loss(told, faked, clean, self.settings.xi)
        if "adversarial" in wanted:
            found["adversarial"] = adversarial_loss(self._judged(self.heads, z_t, t))
        return found

    def _represented(self, tokens: Tensor | None, batch: Batch, latent: Tensor) -> Tensor:
        if tokens is None or self.teacher is None:
            raise RecipeError("the loss repa needs a teacher.", where="settings.teacher", way_out="Name a DINOv2, or leave repa out.")
        height, width = (side // 2 for side in latent.shape[-2:])
        return representation_loss(tokens.float(), teacher_tokens(self.teacher, batch.high_quality, height, width))

    # --- the turns of the score networks: equations 4 and 7

    def _fake(self, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        restored = self._restored(batch, memory)
        t, noise = self._drawn(restored, memory)
        z_t = self.schedule.add_noise(restored, noise, t)
        said = self.scores.noise(model, z_t, t)
        return {"fake": score_loss(self.schedule.clean(z_t, said, t, "epsilon"), restored), "fake_noise": score_loss(said, noise)}

    def _real(self, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = high_latent(self.vae, batch)
        z_t, t = self._noised_clean(clean, memory)
        return {"real": score_loss(self.scores.clean(model, z_t, t), clean)}

    # --- the discriminator's turn: equation 1

    def _discriminator(self, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        restored = self._restored(batch, memory)
        t, noise = self._drawn(restored, memory)
        real, _ = self._noised_clean(high_latent(self.vae, batch), memory)
        both = torch.cat([self.schedule.add_noise(restored, noise, t), real])
        fake_logits, real_logits = zip(*(logits.chunk(2) for logits in self._judged(model, both, t.repeat(2))), strict=True)
        return {"discriminator": discriminator_loss(fake_logits, real_logits)}

    def _judged(self, heads: nn.Module, z_t: Tensor, t: Tensor) -> list[Tensor]:
        """Logits of every head on what the plain base makes of z_t."""
        with features_of(self.base, self.heads.blocks) as found:
            self.scores.noise(self.base, z_t, t)
        logits: list[Tensor] = heads(found)
        return [values.float() for values in logits]

    # --- what turns share: z_g, and one timestep per sample with a noise for z_g and another for z_h

    def _restored(self, batch: Batch, memory: dict[str, Tensor]) -> Tensor:
        if "restored" not in memory:
            with torch.no_grad():
                memory["restored"] = self.generator(low_latent(self.vae, batch), self.prompt)[0].float()
        return memory["restored"]

    def _drawn(self, like: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "t" not in memory:
            memory["t"] = torch.randint(self.settings.first_t, self.settings.last_t + 1, (len(like),), device=like.device)
            memory["noise"] = torch.randn_like(like)
        return memory["t"], memory["noise"]

    def _noised_clean(self, clean: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        t, _ = self._drawn(clean, memory)
        if "noised_clean" not in memory:
            memory["noised_clean"] = self.schedule.add_noise(clean, torch.randn_like(clean), t)
        return memory["noised_clean"], t

    # --- what is seen and kept

    def output(self, batch: Batch) -> dict[str, Tensor]:
        restored, _ = self.generator(low_latent(self.vae, batch), self.prompt)
        return {"low_quality": batch.degraded, "restored": self.vae.decode(restored.float()), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        start, name, text = self.start, self.settings.name, folder / f"{self.settings.name}.md"
        student = Student(start.unet, self.prompt, start.constants, start.border, self.vae.vae)
        if self.settings.layout == "whole":
            files = write_whole(student, folder, name)
        else:
            negative, null = self.prompts.batch([self.settings.negative, ""]).tokens.chunk(2)
            files = write_published(student, {"negative": negative, "null": null}, self._training_parts(), folder, name)
        text.write_text(card)
        return [*files, text]

    def _training_parts(self) -> dict[str, dict[str, Tensor]]:
        """By the names of GenDR's files."""
        adapters = {"score_real_lora": adapter_tensors(self.real), "score_fake_lora": adapter_tensors(self.fake)}
        aligned = self.generator.projector
        projected = {"repa_projector": dict(aligned.state_dict())} if aligned is not None else {}
        return {**adapters, **projected, "disc_heads": dict(self.heads.state_dict())}
