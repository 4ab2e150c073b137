"""InstaRevive's dynamic control: the nearer the output is to the target, the less noise is distilled at, and the more the score counts.

Equations 6 and 7 of the paper; where it is silent or contradicts itself (the smallest index, the root mean square, the direction of
alpha), the reading is ours. All of it is double precision, since T_max is the answer of a comparison.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.diffusion import NoiseSchedule

DistanceMode = Literal["rms", "literal"]

# t is drawn from [0.02 T_max, T_max] (equation 6): T_max / 50, in whole numbers.
LOWEST_SHARE = 50


def distance(output: Tensor, target: Tensor, mode: DistanceMode = "rms") -> Tensor:
    """d [] of output and target [B, ...] (equation 7).

    `literal`: the root of the batch's mean of squared sums, which for any latent of a useful size reaches every timestep. `rms`: that
    divided by the root of the elements per sample.
    """
    squares = (output.double() - target.double()).square().flatten(1)
    return (squares.mean() if mode == "rms" else squares.sum(1).mean()).sqrt()


def noise_levels(schedule: NoiseSchedule, steps: int) -> Tensor:
    """s_t [T] of timesteps 0 .. T - 1."""
    return schedule.noise(torch.arange(steps)).double()


def largest_timestep(levels: Tensor, reach: Tensor) -> Tensor:
    """T_max [] = s^-1(reach): the first timestep whose noise is at least that (equation 6), in 1 .. T - 1."""
    return torch.searchsorted(levels, reach.to(levels)).clamp(1, len(levels) - 1)


def lowest_timestep(t_max: Tensor) -> Tensor:
    """ceil(0.02 T_max)."""
    return -(-t_max // LOWEST_SHARE)


def draw_timesteps(u: Tensor, t_max: Tensor) -> Tensor:
    """t [B], uniform in 0.02 T_max .. T_max (equation 6), from u [B] uniform in [0, 1)."""
    low = lowest_timestep(t_max)
    return (low + (u.double() * (t_max - low + 1)).floor().long()).clamp(max=t_max)


def regression_share(t_max: Tensor, steps: int) -> Tensor:
    """alpha [] = T_max / (T - 1) in L = alpha L_reg + (1 - alpha) lambda L_dsm."""
    return t_max.double() / (steps - 1)
