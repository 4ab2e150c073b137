"""Priors and their VAEs from weights files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..models.mini import build_vae
from . import embedded
from .files import load_strictly, read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def read_vae(weights: str) -> AutoencoderKL:
    """AutoencoderKL in float32 from a file of ours (configuration in its metadata); `embedded` is the mini VAE."""
    path = embedded.VAE if weights == "embedded" else Path(weights)
    tensors, config = read_weights(path)
    if config.get("kind") != "vae":
        raise WeightsError("holds no VAE.", where=str(path), way_out="Choose a file that `kintsugi train mini-vae` exported.")
    vae = build_vae(config["vae"])
    load_strictly(vae, {name: tensor.float() for name, tensor in tensors.items()}, str(path))
    return vae.eval()
