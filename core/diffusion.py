"""Noise schedules and what a prediction says about the clean latent; shared by every method and training stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Literal

import numpy as np
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

    def eps(self, z_t: Tensor, prediction: Tensor, t: Tensor, kind: Prediction) -> Tensor:
        """The noise in z_t [B, C, h, w], of the same."""
        if kind == "epsilon":
            return prediction
        carried = _per_sample(self.signal(t), z_t) * prediction
        return carried + (_per_sample(self.noise(t), z_t) * z_t if kind == "v" else z_t)


def constant_schedule(signal: float, noise: float) -> NoiseSchedule:
    """The same two multipliers at every timestep, such as GenDR's one_step_alpha and one_step_beta (GenDR, eq. 2)."""
    return NoiseSchedule(lambda t: torch.full(t.shape, signal), lambda t: torch.full(t.shape, noise))


def ddpm_schedule(betas: Tensor) -> NoiseSchedule:
    """sqrt of the running product of 1 - beta and what it lacks to 1, by timestep index; multiplied in the precision of betas [T]."""
    products = (1 - betas).cumprod(0)
    signal, noise = products.sqrt().float(), (1 - products).sqrt().float()
    return NoiseSchedule(lambda t: signal.to(t.device)[t], lambda t: noise.to(t.device)[t])


def linear_betas(first: float = 1e-4, last: float = 2e-2, steps: int = 1000, dtype: torch.dtype = torch.float32) -> Tensor:
    """[steps] evenly spaced: PixArt's."""
    return torch.linspace(first, last, steps, dtype=dtype)


def scaled_linear_betas(first: float = 0.00085, last: float = 0.012, steps: int = 1000, dtype: torch.dtype = torch.float32) -> Tensor:
    """[steps] whose square roots are evenly spaced: those of Stable Diffusion 1, 2 and XL."""
    return torch.linspace(first**0.5, last**0.5, steps, dtype=dtype) ** 2


def flow_schedule(steps: int = 1000) -> NoiseSchedule:
    """Rectified flow, z_t = (1 - sigma) z_0 + sigma eps, at the timesteps t = steps * sigma that networks such as SD3 receive."""
    return NoiseSchedule(lambda t: 1 - t / steps, lambda t: t / steps)


def shifted_sigmas(steps: int = 1000, shift: float = 3.0) -> Tensor:
    """sigma [steps] float32 from 1 down to shift / (steps + shift - 1): shift u / (1 + (shift - 1) u) at u = (steps - i) / steps.

    The table SD3 was trained with ("Scaling Rectified Flow Transformers", section 5.3.2); no final zero.
    """
    even = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    return (shift * even / (1 + (shift - 1) * even)).float()


def flux_sigmas(steps: int, tokens: int) -> Tensor:
    """sigma [steps + 1] float32 from 1 down to a final 0, as Flux samples a latent of that many packed tokens.

    e^mu / (e^mu + 1 / u - 1) for u evenly spaced from 1 to 1 / steps; mu is 0.5 for 256 tokens and 1.15 for 4096, since the noise
    hides a large picture less. Rounded as diffusers' FlowMatchEulerDiscreteScheduler does in FluxPipeline, to the bit.
    """
    slope = (1.15 - 0.5) / (4096 - 256)
    shift = exp(slope * tokens + (0.5 - slope * 256))
    even = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
    return torch.cat([torch.from_numpy(shift / (shift + (1 / even - 1))), torch.zeros(1)])


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """values [B] (or [1]) shaped to multiply a [B, C, h, w] tensor, in its dtype and on its device."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))
