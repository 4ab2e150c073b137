"""The PRIOR socket: what restorers of one family share."""

from __future__ import annotations

from dataclasses import dataclass

from .codec import LatentCodec


@dataclass(frozen=True)
class Prior:
    """family: `mini`, later sdxl, sd3, flux ... ; codec: the VAE with the numbers of its latents."""

    family: str
    codec: LatentCodec
