"""GenDR's student trained by regression: the embedded restorer.

The student is GenDR's (equation 2 with the constants in `settings`), the target is the clean latent (equation 6) and, in
later phases, the decoded picture through the frozen VAE.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...core.methods.gendr import GenDR, OneStepConstants
from ...core.models.mini import build_unet, unet_config
from ...core.weights.files import write_weights
from ...core.weights.priors import read_vae
from ..data import Batch
from ..latents import Autoencoder, high_latent, low_latent
from ..prompts import PromptCache
from ..recipe import Strict
from ..regression import regression_losses
from .base import Turns


class GendrRestorerSettings(Strict):
    """vae: a weights file, or `embedded`. prompt_*: size of the stored embedding, drawn once from the seed 0.
    border: pixels of reflection that restoring adds around a window."""

    vae: str = "embedded"
    channels: tuple[int, ...] = (96, 96, 96)
    layers_per_block: int = 1
    norm_groups: int = 8
    prompt_tokens: int = 8
    prompt_width: int = 32
    alpha: float = 1.0
    beta: float = 1.0
    timestep: int = 500
    border: int = 16


class GendrRestorerStage:
    """The student alone: its latent, then its picture, held to the clean one."""

    Settings: ClassVar[type[Strict]] = GendrRestorerSettings
    turns: ClassVar[Turns] = {"student": ("latent", "pixel", "gradient")}

    def __init__(self, settings: GendrRestorerSettings) -> None:
        self.settings = settings
        vae = read_vae(settings.vae)
        self.vae = Autoencoder(vae)
        self.captioned: PromptCache | None = None
        self.config = unet_config(
            settings.channels, vae.config.latent_channels, settings.layers_per_block, settings.prompt_width, settings.norm_groups
        )
        unet = build_unet(self.config)
        # The student starts as the identity (for alpha = 1): it answers eps = 0.
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        prompt = torch.randn(1, settings.prompt_tokens, settings.prompt_width, generator=torch.Generator().manual_seed(0))
        self.student = GenDR(unet, prompt, OneStepConstants(settings.alpha, settings.beta, settings.timestep))
        self.networks: dict[str, nn.Module] = {"student": self.student}
        self.frozen: dict[str, nn.Module] = {}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        restored = model(low_latent(self.vae, batch)).float()
        return regression_losses(restored, high_latent(self.vae, batch), batch.high_quality, self.vae, wanted)

    def output(self, batch: Batch) -> dict[str, Tensor]:
        restored = self.vae.decode(self.student(low_latent(self.vae, batch)))
        return {"low_quality": batch.degraded, "restored": restored, "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / "mini-gendr.safetensors", folder / "mini-gendr.md"
        constants = {"alpha": self.settings.alpha, "beta": self.settings.beta, "timestep": self.settings.timestep}
        folder.mkdir(parents=True, exist_ok=True)
        own_vae = [] if self.settings.vae == "embedded" else [Path(shutil.copy(self.settings.vae, folder / "vae.safetensors"))]
        config = {"kind": "gendr", "unet": self.config, "one_step": constants, "border": self.settings.border}
        write_weights(weights, dict(self.student.state_dict()), {**config, "vae": own_vae[0].name if own_vae else "embedded"})
        text.write_text(card)
        return [weights, text, *own_vae]
