"""The priors that training stands on: published ones, those our own recipes made, and the embedded ones.

While torch's default device is `meta`, as in a dry run, networks are built in their published sizes and nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.diffusion import NoiseSchedule, ddpm_schedule, flow_schedule, linear_betas, scaled_linear_betas
from ..core.errors import RecipeError
from ..core.models.mini import build_vae
from ..core.models.prompt import PromptEncoder
from ..core.weights import embedded
from ..core.weights.bases import find_base
from ..core.weights.configs import shipped_config
from ..core.weights.denoisers import build_denoiser, network_of
from ..core.weights.families import Family, family_of
from ..core.weights.files import NetworkFile, read_weights
from ..core.weights.priors import read_prior, vae_of
from .latents import Autoencoder

# What samplers of one step bring themselves, training has to know: the schedule that each family was trained with.
SCHEDULES: dict[str, Callable[[], NoiseSchedule]] = {
    "sd3": flow_schedule,
    "flux": flow_schedule,
    "sdxl": lambda: ddpm_schedule(scaled_linear_betas()),
    "sd21-vae16": lambda: ddpm_schedule(scaled_linear_betas()),
    "pixart-alpha": lambda: ddpm_schedule(linear_betas()),
}


@dataclass(frozen=True)
class Base:
    """A prior's parts. config: what the denoiser is built from. prompts: None where the base has no text encoders. schedule: by
    timestep; those of a flow are 1000 sigma."""

    family: Family
    denoiser: nn.Module
    config: dict[str, Any]
    vae: Autoencoder
    schedule: NoiseSchedule
    prompts: PromptEncoder | None

    @property
    def name(self) -> str:
        """The family's."""
        return self.family.name


def is_dry() -> bool:
    """Whether networks are built without weights now."""
    return torch.get_default_device().type == "meta"


def base_parts(family: str, weights: str) -> Base:
    """weights: `embedded`, a prior's file that one of our recipes wrote, a base of the models folder by name, or `auto`. Raises
    WeightsError, BadValueError and RecipeError."""
    kind = family_of(family)
    if is_dry():
        return _empty(kind)
    path = embedded.PRIORS[family] if weights == "embedded" else Path(weights)
    return _own(kind, path) if path.suffix == ".safetensors" and path.is_file() else _found(kind, weights)


def _empty(kind: Family) -> Base:
    config = shipped_config(kind.config)
    vae = build_vae(shipped_config(kind.vae_config))
    return Base(kind, network_of(kind, config), config, Autoencoder(vae), SCHEDULES[kind.name](), None)


def _own(kind: Family, path: Path) -> Base:
    if read_weights(path, "text.")[1].get("kind") != "prior":
        raise RecipeError(
            "is no prior with its text encoder.", where=str(path), way_out="Put it into the models folder, and name it as a base there."
        )
    prior = read_prior(path, torch.float32, "none")
    if prior.family != kind.name or prior.denoiser is None:
        raise RecipeError(f"is a prior of {prior.family}, expected {kind.name}.", where=str(path))
    denoiser = prior.denoiser()
    told: Any = denoiser
    config = {name: value for name, value in told.config.items() if not name.startswith("_")}
    return Base(kind, denoiser, config, Autoencoder(prior.codec.vae), prior.schedule or SCHEDULES[kind.name](), prior.prompt_encoder)


def _found(kind: Family, weights: str) -> Base:
    base = find_base(kind.name, weights)
    file = base.denoiser()
    schedule = base.schedule() or SCHEDULES[kind.name]()
    denoiser = build_denoiser(file, kind, base.stored, "none", _stored_dtype(file))
    return Base(kind, denoiser, file.config, Autoencoder(vae_of(base.vae())), schedule, base.prompt_encoder())


def _stored_dtype(file: NetworkFile) -> torch.dtype:
    """What the file holds, so that reading it does not take twice its memory; bf16 for the 8 bits in which nothing can be computed."""
    found = next(tensor.dtype for tensor in file.tensors.values() if tensor.is_floating_point())
    return found if found.itemsize > 1 else torch.bfloat16
