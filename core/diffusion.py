"""Noise schedules and what a prediction says about the clean latent; shared by every method and training stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v", "velocity"]


@dataclass(frozen=True)
class NoiseSchedule:
    """z_t = signal(t) * z_0 + noise(t) * eps: a DDPM table, a flow's 1 - s and s, or GenDR's two constants."""

    signal: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]

    def add_noise(self, clean: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t [B, C, h, w] for timesteps t [B]."""
        return _per_sample(self.signal(t), clean) * clean + _per_sample(self.noise(t), clean) * eps

    def clean(self, z_t: Tensor, prediction: Tensor, t: Tensor, kind: Prediction) -> Tensor:
        """Estimate of z_0 [B, C, h, w] from what the network said about z_t: its noise, its v or its velocity."""
        signal, noise = _per_sample(self.signal(t), z_t), _per_sample(self.noise(t), z_t)
        if kind == "epsilon":
            return (z_t - noise * prediction) / signal
        if kind == "v":
            return signal * z_t - noise * prediction
        return z_t - noise * prediction


def constant_schedule(signal: float, noise: float) -> NoiseSchedule:
    """The same two multipliers at every timestep, such as GenDR's one_step_alpha and one_step_beta (GenDR, eq. 2)."""
    return NoiseSchedule(lambda t: torch.full(t.shape, signal), lambda t: torch.full(t.shape, noise))


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """values [B] (or [1]) shaped to multiply a [B, C, h, w] tensor, in its dtype and on its device."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))
