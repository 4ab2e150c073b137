"""VAEs from weights files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..models.mini import build_vae
from . import embedded
from .files import NetworkFile, build_network
from .vaes import read_vae_network

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def read_vae(place: Path | str) -> AutoencoderKL:
    """AutoencoderKL in float32 from a file of ours, a diffusers folder, or a single file whose configuration is in its
    metadata; `embedded` is the mini VAE. Raises WeightsError."""
    return vae_of(read_vae_network(embedded.VAE if place == "embedded" else Path(place)))


def vae_of(file: NetworkFile) -> AutoencoderKL:
    """The AutoencoderKL that a base's vae() describes, float32. Raises WeightsError for tensors that do not fit."""
    return build_network(lambda: build_vae(file.config), file.tensors, file.where)
