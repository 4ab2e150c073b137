"""What GenDR's score networks say of a noised latent: its noise, or the clean latent behind it, with guidance or without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.diffusion import NoiseSchedule, Prediction
from .losses import guided

# A U-Net, plain or adapted: z_t [B, C, h, w], t [B] and prompt tokens [B, N, D] to a tuple of what it predicts.
ScoreNetwork = Callable[..., tuple[Tensor]]


@dataclass(frozen=True)
class Scores:
    """schedule: of the base. positive, null: prompts [1, N, D], in the dtype that the score networks compute in. kappa: guidance.
    prediction: what the networks predict."""

    schedule: NoiseSchedule
    positive: Tensor
    null: Tensor
    kappa: float
    prediction: Prediction = "epsilon"

    def noise(self, network: ScoreNetwork, z_t: Tensor, t: Tensor) -> Tensor:
        """eps(z_t; t, c) float32, given the positive prompt."""
        return self._said(network, z_t, t, self.positive)

    def clean(self, network: ScoreNetwork, z_t: Tensor, t: Tensor) -> Tensor:
        """f(z_t; t, c) = (z_t - B_t eps) / A_t, given the positive prompt."""
        return self.schedule.clean(z_t, self.noise(network, z_t, t), t, "epsilon")

    def guided_clean(self, network: ScoreNetwork, z_t: Tensor, t: Tensor) -> Tensor:
        """f_k = f(empty) + k (f(c) - f(empty)) (equation 7); of the guided noise, since f is linear in it. One call of 2 B rows."""
        prompts = torch.cat([self.positive.expand(len(z_t), -1, -1), self.null.expand(len(z_t), -1, -1)])
        positive, null = self._said(network, z_t.repeat(2, 1, 1, 1), t.repeat(2), prompts).chunk(2)
        return self.schedule.clean(z_t, guided(null, positive, self.kappa), t, "epsilon")

    def _said(self, network: ScoreNetwork, z_t: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        tokens = prompt.expand(len(z_t), -1, -1)
        said = network(z_t.to(tokens.dtype), t, tokens, return_dict=False)[0].float()
        return self.schedule.eps(z_t, said, t, self.prediction)
