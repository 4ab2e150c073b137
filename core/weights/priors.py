"""Priors of a family, and VAEs from weights files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..models.codec import LatentCodec
from ..models.mini import build_vae
from ..models.offload import Offload, place
from ..models.prior import Prior
from ..runtime import DTYPES, current_host
from . import embedded
from .bases import Base, find_base, search_base
from .families import family_of
from .files import NetworkFile, build_network
from .vaes import read_vae_network

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

log = logging.getLogger("kintsugi")


def load_prior(family: str, weights: str = "auto", dtype: str = "auto", offload: Offload = "none") -> Prior:
    """The prior on the host's device: its VAE at once, its denoiser and text encoders when they are first asked for.

    weights: a base by name, `embedded` (the mini VAE, whatever the family), or `auto`: what is found of the family, else
    embedded. dtype: `auto` (the host's), fp32, bf16, fp16. Raises WeightsError, BadValueError and OutOfMemoryError.
    """
    chosen = DTYPES.get(dtype, current_host().dtype)
    base = _base(family, weights)
    if base is None:
        return Prior("mini", LatentCodec(place(read_vae("embedded"), chosen, offload)))
    codec = LatentCodec(place(vae_of(base.vae()), chosen, offload))
    return Prior(base.family, codec, _denoiser(base, chosen, offload), base.prompt_encoder())


def _base(family: str, weights: str) -> Base | None:
    """None for the embedded prior."""
    if weights not in ("auto", "embedded"):
        return find_base(family, weights)
    base = search_base(family) if weights == "auto" else None
    if base is None:
        log.info("Prior %s: the small embedded VAE.", family)
    return base


def _denoiser(base: Base, dtype: torch.dtype, offload: Offload) -> Callable[[], nn.Module]:
    """Reads the network at the first call and keeps it."""
    return cache(lambda: place(_network(base.denoiser(), family_of(base.family).network, dtype), dtype, offload))


def _network(file: NetworkFile, class_name: str, dtype: torch.dtype) -> nn.Module:
    import diffusers

    network_class: Any = getattr(diffusers, class_name)
    network: nn.Module = build_network(lambda: network_class.from_config(file.config), file.tensors, file.where, dtype)
    return network


def read_vae(where: Path | str) -> AutoencoderKL:
    """AutoencoderKL in float32 from a file of ours, a diffusers folder, or a single file whose configuration is in its
    metadata; `embedded` is the mini VAE. Raises WeightsError."""
    return vae_of(read_vae_network(embedded.VAE if where == "embedded" else Path(where)))


def vae_of(file: NetworkFile) -> AutoencoderKL:
    """The AutoencoderKL that a base's vae() describes, float32. Raises WeightsError for tensors that do not fit."""
    return build_network(lambda: build_vae(file.config), file.tensors, file.where)
