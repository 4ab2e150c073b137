"""InstantIR, stage I: the Degradation Content Perceptor learns to steer a frozen SDXL by what DINOv2 sees (equations 1, 3 and 4)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.methods.instantir import TRAINING_STEPS
from ...core.models.resampler import ResamplerConfig
from ...core.weights.diffusers_folders import read_network_folder
from ...core.weights.files import write_weights
from ...core.weights.instantir_dcp import ENCODER, KIND
from ...core.weights.instantir_encoder import MODEL_TYPE, load_encoder
from ..bases import base_parts, is_dry
from ..data import Batch
from ..instantir_parts import FAMILY, PUBLISHED_ENCODER, Ground, InstantIrSettings, new_dcp, new_encoder
from ..latents import high_latent
from ..losses import late_noise_weight, noise_loss
from ..recipe import Strict
from ..steered_unet import Perceiving, start_as_text
from .base import Turns


class InstantIrDcpSettings(InstantIrSettings):
    """encoder: a DINOv2 as Load DCP offers it, which stays as it is, or the configuration of one that is trained along and exported in
    the same file. resampler: sizes of the Resampler but for those of its tokens. weighting: `late` counts strong noise more."""

    encoder: str | dict[str, Any] = "auto"
    resampler: dict[Literal["dim", "depth", "dim_head", "heads", "num_queries", "ff_mult"], int] = Field(default_factory=dict)
    weighting: Literal["plain", "late"] = "plain"


class InstantIrDcpStage:
    """Resampler and decoupled attentions, which begin as those of the text."""

    Settings: ClassVar[type[Strict]] = InstantIrDcpSettings
    turns: ClassVar[Turns] = {"dcp": ("noise",)}

    def __init__(self, settings: InstantIrDcpSettings) -> None:
        self.settings = settings
        base = base_parts(FAMILY, settings.prior)
        self.trains_encoder = isinstance(settings.encoder, dict)
        encoder = _encoder(settings.encoder)
        widths = {"embedding_dim": encoder.config.hidden_size, "output_dim": base.config["cross_attention_dim"]}
        dcp = new_dcp(base, ResamplerConfig(**settings.resampler, **widths))
        start_as_text(dcp, base.denoiser)
        self.ground = Ground(settings, base, dcp, encoder)
        self.vae, self.schedule, self.captioned = base.vae, base.schedule, self.ground.captioned
        self.model = Perceiving(self.ground.steered, encoder, self.trains_encoder)
        self.networks: dict[str, nn.Module] = {"dcp": self.model}
        self.frozen: dict[str, nn.Module] = {"unet": base.denoiser, **({} if self.trains_encoder else {"encoder": encoder})}

    def losses(self, turn: str, model: nn.Module, batch: Batch, wanted: frozenset[str], memory: dict[str, Tensor]) -> dict[str, Tensor]:
        clean = high_latent(self.vae, batch)
        noise, timestep = torch.randn_like(clean), torch.randint(TRAINING_STEPS, clean.shape[:1], device=clean.device)
        told, shown = self.ground.dropped(batch)
        said = model(self.schedule.add_noise(clean, noise, timestep), timestep, *told, shown)
        weight = late_noise_weight(timestep) if self.settings.weighting == "late" else 1.0
        return {"noise": noise_loss(said, noise, weight)}

    def output(self, batch: Batch) -> dict[str, Tensor]:
        return {"low_quality": batch.degraded, "sampled": self.ground.restored(batch), "high_quality": batch.high_quality}

    def export(self, folder: Path, card: str) -> list[Path]:
        weights, text = folder / f"{self.settings.name}.safetensors", folder / f"{self.settings.name}.md"
        dcp = self.model.dcp
        config: dict[str, Any] = {"kind": KIND, "dim_head": dcp.image_proj.config.dim_head}
        tensors = dict(dcp.state_dict())
        if self.trains_encoder:
            tensors |= self._encoder_tensors()
            config["encoder"] = {"model_type": MODEL_TYPE, **self.ground.encoder.config.to_diff_dict()}
        write_weights(weights, tensors, config)
        text.write_text(card)
        return [weights, text]

    def _encoder_tensors(self) -> dict[str, Tensor]:
        """In published names, which transformers alone knows how to write."""
        with TemporaryDirectory() as folder:
            self.ground.encoder.save_pretrained(folder)
            return {f"{ENCODER}{name}": tensor for name, tensor in read_network_folder(Path(folder)).tensors.items()}


def _encoder(chosen: str | dict[str, Any]) -> Any:
    if isinstance(chosen, dict):
        return new_encoder(chosen)
    if is_dry():
        return new_encoder(PUBLISHED_ENCODER)
    return load_encoder(chosen, None, PUBLISHED_ENCODER["hidden_size"], torch.float32)
