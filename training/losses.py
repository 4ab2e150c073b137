"""Losses as pure functions of tensors; each cites its equation. The stage decides who is frozen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier distance, mean over [B, 3, H, W]: L1 that is smooth at zero (epsilon 1e-3 of full range)."""
    return torch.sqrt((output - target) ** 2 + 1e-6).mean()


def square_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared distance, mean over [B, 3, H, W]: the L2 loss of DiffBIR's restoration stage (arXiv 2308.15070, section 3)."""
    return F.mse_loss(output, target)


def gradient_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 distance of horizontal and vertical differences: the mini recipes' stand-in for LPIPS."""
    difference = output - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def latent_mse(output: Tensor, target: Tensor) -> Tensor:
    """|| z_g - z_h ||^2, mean over all elements (GenDR, equation 6)."""
    return F.mse_loss(output, target)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from the standard normal, mean over all elements, in nats."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


def latent_moments(latent: Tensor) -> Tensor:
    """Squared distance of each channel's mean from 0 and deviation from 1, latent [B, C, h, w], mean over channels."""
    values = latent.transpose(0, 1).flatten(1)
    return (values.mean(1) ** 2 + (values.std(1) - 1) ** 2).mean()
