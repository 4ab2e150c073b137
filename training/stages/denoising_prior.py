"""A prior by the denoising loss of its family: epsilon for U-Nets and PixArt, the velocity of a rectified flow for SD3 and Flux.

What the mini family has in place of a published prior: the family's own class at a small size, on clean pictures. Prompts are random
bytes, sizes and guidance random numbers, so that the network learns to pay them no heed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.models.byte_text import ByteTextEncoder
from ...core.weights.denoisers import network_of
from ...core.weights.families import family_of
from ...core.weights.priors import read_vae
from ..bases import SCHEDULES
from ..data import Batch
from ..denoisers import PREDICTIONS, denoised, drawn_prompt, drawn_sizes, predict
from ..latents import Autoencoder, high_latent
from ..losses import denoising_loss
from ..prior_file import write_prior
from ..prompts import PromptCache
from ..recipe import Strict
from .base import Turns

STEPS = 1000
SHOWN = (250, 500, 750)
GUIDANCE = (1.0, 8.0)


class DenoisingPriorSettings(Strict):
    """family: whose class, schedule and loss. network: its diffusers configuration. text: sizes of the ByteTextEncoder. betas: first
    and last, for samplers of many steps of a family that follows no flow. vae: a weights file, or `embedded`. largest_side: latent
    pixels along a side of what it was trained on, where it can do no larger ones. name: of the exported file."""

    family: str
    network: dict[str, Any]
    text: dict[str, int]
    betas: tuple[float, float] | None = None
    vae: str = "embedded"
    largest_side: int | None = None
    name: str = "prior"


class DenoisingPriorStage:
    """The whole network by one loss."""

    Settings: ClassVar[type[Strict]] = DenoisingPriorSettings
    turns: ClassVar[Turns] = {"prior": ("denoising",)}

    def __init__(self, settings: DenoisingPriorSettings) -> None:
        self.settings = settings
        self.kind = family_of(settings.family)
        self.schedule = SCHEDULES[settings.family]()
        self.prior = network_of(self.kind, settings.network)
        self.text = ByteTextEncoder(**settings.text)
        self.vae = Autoencoder(read_vae(settings.vae))
        self.captioned: PromptCache | None = None
        self.networks: dict[str, nn.Module] = {"prior": self.prior}
        self.frozen: dict[str, nn.Module] = {"text": self.text}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = high_latent(self.vae, batch)
        eps, timestep = torch.randn_like(clean), self._timesteps(clean)
        z_t = self.schedule.add_noise(clean, eps, timestep)
        target = eps - clean if self._is_flow else eps
        return {"denoising": denoising_loss(self._predict(model, z_t, timestep).float(), target)}

    @property
    def _is_flow(self) -> bool:
        return PREDICTIONS[self.settings.family] == "velocity"

    def _timesteps(self, like: Tensor) -> Tensor:
        """[B]: whole ones from 0 to 999, or for a flow any from 0 to 1000."""
        rows, device = like.shape[0], like.device
        return STEPS * torch.rand(rows, device=device) if self._is_flow else torch.randint(STEPS, (rows,), device=device)

    def _predict(self, model: nn.Module, z_t: Tensor, timestep: Tensor) -> Tensor:
        rows, device = z_t.shape[0], z_t.device
        low, high = GUIDANCE
        guidance = low + (high - low) * torch.rand(rows, device=device)
        return predict(self.settings.family, model, z_t, timestep, drawn_prompt(self.text, rows), drawn_sizes(rows, device), guidance)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        """What it takes for the clean picture at three noise levels."""
        clean, kind = high_latent(self.vae, batch), PREDICTIONS[self.settings.family]

        def shown(level: int) -> Tensor:
            return self.vae.decode(denoised(self.schedule, clean, level, lambda z_t, t: self._predict(self.prior, z_t, t), kind))

        return {**{f"denoised from {level}": shown(level) for level in SHOWN}, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"
        told = {"text": self.settings.text, "vae": self.settings.vae}
        bounds = {"betas": self.settings.betas, "largest_side": self.settings.largest_side}
        write_prior(weights, self.kind, self.prior, self.settings.network, self.text, {**told, **bounds})
        text.write_text(card)
        return [weights, text]
