"""LATENT on a wire: what ComfyUI's own VAE Encode gives and VAE Decode takes, so that ours and those fit together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.models.prior import Prior

Latent = dict[str, Any]


def scaled(prior: Prior, latent: Latent) -> Tensor:
    """What the prior's networks see, float32 [B, C, h, w]."""
    return prior.codec.scaled(latent["samples"].float())


def with_samples(latent: Latent, prior: Prior, samples: Tensor) -> Latent:
    """The latent with other samples, given as the prior's networks see them [B, C, h, w]."""
    return {**latent, "samples": prior.codec.unscaled(samples)}
