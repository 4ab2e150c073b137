"""TSD-SR's losses: target score distillation along a short trajectory of falling noise, and what its auxiliary network learns.

"TSD-SR" (arXiv 2411.18263), whose equations are cited. Networks say a velocity v = eps - z; at noise level sigma a latent is
z_t = (1 - sigma) z + sigma eps. What the paper leaves open (w, lambda, the shares of later points, the auxiliary's weighting) is the
release's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v [B, C, h, w] of noised latents [B, C, h, w] at noise levels sigma [B]."""

Weighting = Literal["logit-normal", "sigma-sqrt", "mode"]
MODE_SCALE = 1.29


@dataclass(frozen=True)
class TrajectoryPoint:
    """One noise level sigma [B]: the student's latent and the clean one noised to it, and what is said about them, [B, C, h, w] each.

    teacher, teacher_clean: the teacher's velocity of the student's latent and of the clean one; auxiliary: the auxiliary network's of
    the student's.
    """

    sigma: Tensor
    student: Tensor
    clean: Tensor
    teacher: Tensor
    teacher_clean: Tensor
    auxiliary: Tensor

    def moved(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Both latents at another noise level [B]: z_s = z_t + (s - t) v, each by its own network's velocity (equation 6)."""
        step = (sigma - self.sigma)[:, None, None, None]
        return self.student + step * self.auxiliary, self.clean + step * self.teacher_clean


def trajectory_indices(first: Tensor, points: int, stride: int, last: int, bias: Tensor | int = 0) -> Tensor:
    """Places [B, points + 1] in the table of sigmas, from first [B] to first + points * stride + bias or, where that lies beyond it, to
    the table's last; evenly spaced, rounded down."""
    end = (first + points * stride + bias).clamp(max=last)
    return first[:, None] + (end - first)[:, None] * torch.arange(points + 1, device=first.device) // points


@torch.no_grad()
def follow_trajectory(student: Tensor, clean: Tensor, sigmas: Tensor, teacher: Velocity, auxiliary: Velocity) -> list[TrajectoryPoint]:
    """The points that distribution-aware sampling (DASM) looks at: student and clean [B, C, h, w] noised to sigmas[:, 0] by the same
    noise, then taken on to every level of sigmas [B, points + 1] but the last (equation 6). One point is plain distillation.

    Each sample may have noise levels of its own. The release takes those of the first sample for all, whatever the others were noised
    to; that is `sigmas` with equal rows.
    """
    found: list[TrajectoryPoint] = []
    for sigma in sigmas.unbind(1)[:-1]:
        if found:
            student, clean = found[-1].moved(sigma)
        said = teacher(student, sigma), teacher(clean, sigma), auxiliary(student, sigma)
        found.append(TrajectoryPoint(sigma, student, clean, *said))
    return found


def point_weights(points: Sequence[TrajectoryPoint], shares: Sequence[float]) -> list[Tensor]:
    """w [B] of each point: its share times sigma^2. The paper has a w(t) without saying which."""
    return [share * point.sigma**2 for share, point in zip(shares, points, strict=True)]


def vsd_direction(points: Sequence[TrajectoryPoint], weights: Sequence[Tensor]) -> Tensor:
    """Variational score distillation, the sum of w (eps_psi(z^_t) - eps_phi(z^_t)) over the points (equation 3)."""
    return _weighted_sum(weights, [point.teacher - point.auxiliary for point in points])


def tsm_direction(points: Sequence[TrajectoryPoint], weights: Sequence[Tensor]) -> Tensor:
    """Target score matching, the sum of w (eps_psi(z^_t) - eps_psi(z_t)) over the points (equation 4)."""
    return _weighted_sum(weights, [point.teacher - point.teacher_clean for point in points])


def tsd_direction(vsd: Tensor, tsm: Tensor, balance: float) -> Tensor:
    """Target score distillation, lambda VSD + (1 - lambda) TSM (equation 5); `balance` is lambda."""
    return balance * vsd + (1 - balance) * tsm


def auxiliary_loss(clean: Tensor, student: Tensor, weighting: Tensor) -> Tensor:
    """0.5 omega ||z_0 - z^||^2 with the auxiliary's estimate z_0 of the student's latent z^ [B, C, h, w] and omega [B]; the mean over all
    elements. Since z_0 - z^ = -sigma (v - (eps - z^)), it is equation 9 times sigma^2 omega / 2."""
    return (0.5 * weighting * F.mse_loss(clean, student.detach(), reduction="none").flatten(1).mean(1)).mean()


def auxiliary_weighting(kind: Weighting, draw: Tensor, sigma: Tensor) -> Tensor:
    """omega [B]: `logit-normal` the sigmoid of a standard normal draw, `mode` of a uniform one, `sigma-sqrt` 1 / sigma^2.

    Only the last depends on the noise level: it makes the loss that of equation 9. The others are the release's.
    """
    if kind == "logit-normal":
        return draw.sigmoid()
    if kind == "mode":
        return 1 - draw - MODE_SCALE * (torch.cos(math.pi * draw / 2) ** 2 - 1 + draw)
    return sigma**-2


def _weighted_sum(weights: Sequence[Tensor], differences: Sequence[Tensor]) -> Tensor:
    """A value that overflowed in half precision adds nothing."""
    terms = [weight[:, None, None, None] * difference for weight, difference in zip(weights, differences, strict=True)]
    return torch.stack([torch.where(term.isnan(), 0.0, term) for term in terms]).sum(0)
