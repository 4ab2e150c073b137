"""InstantIR's three networks and the single calls that its sampling is made of: look ahead, aggregate, denoise."""

from __future__ import annotations

from collections.abc import Callable
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


@dataclass(frozen=True)
class Conditions:
    """What steers every call, R rows: the B pictures, or under guidance the unconditional rows before the conditional ones.

    text_keys: of InstantUNet.text_keys(); pooled [R, P]; size_ids [R, 6]; tokens and preview_tokens [R, Q, D]: the Resampler's,
    with the Previewer's adapter off and on.
    """

    text_keys: list[Tensor]
    pooled: Tensor
    size_ids: Tensor
    tokens: Tensor
    preview_tokens: Tensor

    def last(self, rows: int) -> Conditions:
        """Those of the last rows alone: of the conditional half."""
        return self._each(lambda part: part[-rows:])

    def repeated(self, times: int) -> Conditions:
        """The same rows once for each of several tiles."""
        return self._each(lambda part: part.repeat(times, *[1] * (part.ndim - 1)))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        parts = (self.pooled, self.size_ids, self.tokens, self.preview_tokens)
        return Conditions([change(keys) for keys in self.text_keys], *map(change, parts))


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
    """The three networks. schedule: SDXL's, whose noise and signal tables the timesteps index."""

    unet: InstantUNet
    previewer: LoraSwitch
    aggregator: Aggregator
    schedule: NoiseSchedule

    def preview(self, z: Tensor, timestep: Tensor, conditions: Conditions) -> Look:
        """One look ahead from z [R, C, h, w] at timestep [R]."""
        with self.previewer.on():
            eps = self._predict(z, timestep, conditions, conditions.preview_tokens, [])
        return Look(eps, single_step(self.schedule, z, eps, timestep))

    def denoise(self, z: Tensor, timestep: Tensor, conditions: Conditions, steering: Steering | None, residuals: list[Tensor]) -> Denoised:
        """Noise [R, C, h, w] that the U-Net sees in z, steered by what the Aggregator makes of the comparison, or without one by
        these residuals."""
        residuals = residuals if steering is None else self.residuals(steering, timestep, conditions)
        return Denoised(self._predict(z, timestep, conditions, conditions.tokens, residuals), residuals)

    @torch.inference_mode()
    def residuals(self, steering: Steering, timestep: Tensor, conditions: Conditions) -> list[Tensor]:
        """The Aggregator's residuals, scaled: the skips', then the middle's."""
        shapes: list[torch.Size] = []

        def flat(*inputs: Tensor) -> Tensor:
            outputs = self.aggregator(*inputs)
            shapes[:] = [output.shape[1:] for output in outputs]
            return torch.cat([output.flatten(1) for output in outputs], dim=1)

        joined = run_model(flat, steering.degraded, steering.reference, timestep, conditions.pooled, conditions.size_ids)
        parts = (steering.strength[:, None] * joined).split([shape.numel() for shape in shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _predict(self, z: Tensor, timestep: Tensor, conditions: Conditions, tokens: Tensor, residuals: list[Tensor]) -> Tensor:
        return self.unet.predict(z, timestep, conditions.pooled, conditions.size_ids, tokens, conditions.text_keys, residuals)
