"""VAEs as they are published: diffusers folders and single files, with the scaling that their latents are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .configs import shipped_config
from .diffusers_folders import has_network, read_network_folder
from .files import NetworkFile
from .single_files import has_vae, read_vae_file

_NUMBERS = ("scaling_factor", "shift_factor")


def holds_vae(place: Path) -> bool:
    """Whether a VAE lies there: the folder of a pipeline or of the network itself, a single file, or a checkpoint with one."""
    return has_network(_network_folder(place)) if place.is_dir() else has_vae(place)


def read_vae_network(place: Path, default: str | None = None) -> NetworkFile:
    """The AutoencoderKL of a diffusers folder, a single file or a checkpoint, diffusers names. Raises WeightsError.

    default: the shipped configuration of the family, for single files without one and for folders that leave out the scaling
    of their latents, as old ones do. Without it such a folder is refused: a network restores only latents scaled as those it
    was trained on, and what diffusers assumes is the scaling of Stable Diffusion 1.
    """
    file = read_network_folder(_network_folder(place)) if place.is_dir() else read_vae_file(place, default)
    config = {**_known_numbers(default), **file.config}
    if config.get("scaling_factor") is None:
        raise WeightsError(
            "its configuration has no scaling_factor, and latents of another scaling would be restored wrongly.",
            where=file.where,
            way_out="Add the scaling_factor that the generator was trained with to its config.json.",
        )
    return NetworkFile(file.tensors, config, file.where)


def _network_folder(place: Path) -> Path:
    """The subfolder `vae` of a pipeline's folder, or the folder itself."""
    return place / "vae" if (place / "vae").is_dir() else place


def _known_numbers(default: str | None) -> dict[str, Any]:
    config = shipped_config(default) if default else {}
    return {name: config[name] for name in _NUMBERS if name in config}
