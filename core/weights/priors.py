"""VAEs from weights files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..models.mini import build_vae
from . import embedded
from .files import build_network, read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def read_vae(place: Path | str) -> AutoencoderKL:
    """AutoencoderKL in float32 from a file of ours (configuration in its metadata); `embedded` is the mini VAE."""
    path = embedded.VAE if place == "embedded" else Path(place)
    tensors, config = read_weights(path)
    if config.get("kind") != "vae":
        raise WeightsError("holds no VAE.", where=str(path), way_out="Choose a file that `kintsugi train mini-vae` exported.")
    return build_network(lambda: build_vae(config["vae"]), tensors, str(path))
