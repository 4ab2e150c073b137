"""InstantIR's three networks and the single calls that its sampling is made of: look ahead, aggregate, denoise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion import NoiseSchedule, Prediction
from ..models.aggregator import Aggregator
from ..models.instant_unet import InstantUNet
from ..models.lora_switch import LoraSwitch
from ..runtime import run_model

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0


class Conditions(NamedTuple):
    """What steers every call, R rows: the B pictures, or under guidance the unconditional rows before the conditional ones.

    pooled [R, P]; size_ids [R, 6]; text [R, L, D] and text_keys [R, F]: the prompt's tokens and what InstantUNet makes of them;
    image_keys [R, G]: what it makes of the image tokens; both again with the Previewer's adapter on.
    """

    pooled: Tensor
    size_ids: Tensor
    text: Tensor
    text_keys: Tensor
    image_keys: Tensor
    preview_text_keys: Tensor
    preview_image_keys: Tensor

    def ahead(self) -> Conditions:
        """The same as the Previewer sees them."""
        return self._replace(text_keys=self.preview_text_keys, image_keys=self.preview_image_keys)

    def last(self, rows: int) -> Conditions:
        """Those of the last rows alone: of the conditional half."""
        return Conditions(*(part[-rows:] for part in self))

    def repeated(self, times: int) -> Conditions:
        """The same rows once for each of several tiles."""
        return Conditions(*(torch.cat([part] * times) for part in self))


class Steering(NamedTuple):
    """What the Aggregator compares, degraded and reference latent [R, C, h, w], and how much its residuals count, strength [R]."""

    degraded: Tensor
    reference: Tensor
    strength: Tensor


class Denoised(NamedTuple):
    """eps [R, C, h, w], and the scaled residuals that steered it ([] for none)."""

    eps: Tensor
    residuals: list[Tensor]


class Look(NamedTuple):
    """A preview [R, C, h, w]: the noise that the Previewer saw, and the clean latent that follows."""

    eps: Tensor
    latent: Tensor


def single_step(schedule: NoiseSchedule, z: Tensor, prediction: Tensor, timestep: Tensor, kind: Prediction = "epsilon") -> Tensor:
    """c_out x_0 + c_skip z_t [R, C, h, w], the consistency parametrisation that the Previewer was distilled in."""
    scaled = (TIMESTEP_SCALING * timestep.to(z)).reshape(-1, 1, 1, 1)
    squares = scaled**2 + SIGMA_DATA**2
    return scaled / squares**0.5 * schedule.clean(z, prediction, timestep, kind) + SIGMA_DATA**2 / squares * z


@dataclass(frozen=True)
class InstantIR:
    """The three networks. aggregator: None where nothing but preview() is asked; schedule: SDXL's, whose noise and signal tables
    the timesteps index. Latents and conditions lie on the host's device."""

    unet: InstantUNet
    previewer: LoraSwitch
    aggregator: Aggregator | None
    schedule: NoiseSchedule

    def preview(self, z: Tensor, timestep: Tensor, conditions: Conditions) -> Look:
        """One look ahead from z [R, C, h, w] at timestep [R]."""
        with self.previewer.on():
            eps = self._predict(z, timestep, conditions.ahead(), [])
        return Look(eps, single_step(self.schedule, z, eps, timestep))

    def denoise(self, z: Tensor, timestep: Tensor, conditions: Conditions, steering: Steering | None, residuals: list[Tensor]) -> Denoised:
        """Noise [R, C, h, w] that the U-Net sees in z, steered by what the Aggregator makes of the comparison, or without one by
        these residuals."""
        residuals = residuals if steering is None else self.residuals(steering, timestep, conditions)
        return Denoised(self._predict(z, timestep, conditions, residuals), residuals)

    @torch.inference_mode()
    def residuals(self, steering: Steering, timestep: Tensor, conditions: Conditions) -> list[Tensor]:
        """The Aggregator's residuals, scaled: the skips', then the middle's."""
        shapes: list[torch.Size] = []
        aggregator = self.aggregator
        assert aggregator is not None

        def flat(degraded: Tensor, reference: Tensor, timestep: Tensor, pooled: Tensor, size_ids: Tensor) -> Tensor:
            dtype = aggregator.dtype
            outputs = aggregator(degraded.to(dtype), reference.to(dtype), timestep, pooled.to(dtype), size_ids)
            shapes[:] = [output.shape[1:] for output in outputs]
            return torch.cat([output.flatten(1) for output in outputs], dim=1)

        joined = run_model(flat, steering.degraded, steering.reference, timestep, conditions.pooled, conditions.size_ids)
        parts = (steering.strength[:, None] * joined).split([shape.numel() for shape in shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _predict(self, z: Tensor, timestep: Tensor, conditions: Conditions, residuals: list[Tensor]) -> Tensor:
        pooled, size_ids, text, text_keys, image_keys, *_ = conditions
        return self.unet.predict(z, timestep, pooled, size_ids, text, text_keys, image_keys, residuals)
