"""VAEs as they are published: diffusers folders and single files, with the scaling that their latents are kept in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from .configs import shipped_config
from .diffusers_folders import has_network, read_network_folder
from .files import NetworkFile
from .single_files import has_vae, read_vae_file

log = logging.getLogger("kintsugi")

_SETTINGS = ("scaling_factor", "shift_factor", "force_upcast")


def holds_vae(place: Path) -> bool:
    """Whether a VAE lies there: the folder of a pipeline or of the network itself, a single file, or a checkpoint with one."""
    return has_network(_network_folder(place)) if place.is_dir() else has_vae(place)


def read_vae_network(place: Path, default: str | None = None) -> NetworkFile:
    """The AutoencoderKL of a diffusers folder, a single file or a checkpoint, diffusers names. Raises WeightsError.

    default: the shipped configuration of the family, for single files without one and for folders that leave out the scaling
    of their latents or the precision they need, as old ones do. Without it a folder without scaling is refused: a network
    restores only latents scaled as those it was trained on, and what diffusers assumes is the scaling of Stable Diffusion 1.
    """
    file = read_network_folder(_network_folder(place)) if place.is_dir() else read_vae_file(place, default)
    config = {**_known_settings(default), **file.config}
    if config.get("scaling_factor") is None:
        raise WeightsError(
            "its configuration has no scaling_factor, and latents of another scaling would be restored wrongly.",
            where=file.where,
            way_out="Add the scaling_factor that the generator was trained with to its config.json.",
        )
    return NetworkFile(file.tensors, config, file.where)


def vae_dtype(file: NetworkFile, dtype: torch.dtype) -> torch.dtype:
    """The dtype for a VAE where that one was chosen: float32 instead of float16 where it says that its activations overflow."""
    if dtype != torch.float16 or not file.config.get("force_upcast"):
        return dtype
    log.info("%s: the VAE stays in float32, because it overflows in float16.", file.where)
    return torch.float32


def _network_folder(place: Path) -> Path:
    """The subfolder `vae` of a pipeline's folder, or the folder itself."""
    return place / "vae" if (place / "vae").is_dir() else place


def _known_settings(default: str | None) -> dict[str, Any]:
    config = shipped_config(default) if default else {}
    return {name: config[name] for name in _SETTINGS if name in config}
