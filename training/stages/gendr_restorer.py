"""GenDR's student trained by regression: the embedded restorer.

The student is GenDR's (equation 2 with the constants in `settings`), the target is the clean latent (equation 6) and, in
later phases, the decoded picture through the frozen VAE.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.methods.gendr import GenDR, OneStepConstants
from ...core.models.mini import build_unet, unet_config
from ...core.weights.files import write_weights
from ...core.weights.priors import read_vae
from ..losses import gradient_loss, latent_mse, pixel_loss
from ..recipe import Strict


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
    """Losses: latent, pixel, gradient."""

    def __init__(self, settings: GendrRestorerSettings) -> None:
        self.settings = settings
        self.vae = read_vae(settings.vae)
        self.config = unet_config(
            settings.channels, self.vae.config.latent_channels, settings.layers_per_block, settings.prompt_width, settings.norm_groups
        )
        unet = build_unet(self.config)
        # The student starts as the identity (for alpha = 1): it answers eps = 0.
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        prompt = torch.randn(1, settings.prompt_tokens, settings.prompt_width, generator=torch.Generator().manual_seed(0))
        self.trained = GenDR(unet, prompt, OneStepConstants(settings.alpha, settings.beta, settings.timestep))
        self.frozen = [self.vae]

    def losses(self, model: nn.Module, batch: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
        clean = batch["high_quality"]
        restored = model(self._encode(batch["low_quality"]))
        losses: dict[str, Tensor] = {}
        if "latent" in wanted:
            losses["latent"] = latent_mse(restored.float(), self._encode(clean).float())
        if wanted & {"pixel", "gradient"}:
            output = self._decode(restored)
            losses["pixel"] = pixel_loss(output, clean)
            losses["gradient"] = gradient_loss(output, clean)
        return {name: loss for name, loss in losses.items() if name in wanted}

    def output(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        restored = self._decode(model(self._encode(batch["low_quality"])))
        return {"low_quality": batch["low_quality"], "restored": restored, "high_quality": batch["high_quality"]}

    def export(self, model: Any, folder: Path, card: str) -> list[Path]:
        weights, text = folder / "mini-gendr.safetensors", folder / "mini-gendr.md"
        constants = {"alpha": self.settings.alpha, "beta": self.settings.beta, "timestep": self.settings.timestep}
        folder.mkdir(parents=True, exist_ok=True)
        own_vae = [] if self.settings.vae == "embedded" else [Path(shutil.copy(self.settings.vae, folder / "vae.safetensors"))]
        config = {"kind": "gendr", "unet": self.config, "one_step": constants, "border": self.settings.border}
        write_weights(weights, dict(model.state_dict()), {**config, "vae": own_vae[0].name if own_vae else "embedded"})
        text.write_text(card)
        return [weights, text, *own_vae]

    @torch.no_grad()
    def _encode(self, pictures: Tensor) -> Tensor:
        pictures = pictures.to(memory_format=torch.channels_last)
        return (self.vae.encode(2 * pictures - 1).latent_dist.mode() - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _decode(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent / self.vae.config.scaling_factor + self.vae.config.shift_factor).sample.float() / 2 + 0.5
