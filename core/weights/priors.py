"""Priors of a family, and VAEs from weights files."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..diffusion import ddpm_schedule, flow_schedule, scaled_linear_betas
from ..models.byte_text import ByteTextEncoder
from ..models.codec import LatentCodec
from ..models.mini import build_vae
from ..models.offload import Offload, place, spared
from ..models.prior import Prior
from ..runtime import DTYPES, current_host
from . import embedded
from .bases import Base, find_base, search_base
from .denoisers import build_denoiser, fitting_offload, require_possible
from .families import family_of
from .files import NetworkFile, build_network, read_weights
from .nf4 import Quantization
from .vaes import read_vae_network, vae_dtype

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

log = logging.getLogger("kintsugi")


def load_prior(
    family: str, weights: str = "auto", dtype: str = "auto", offload: Offload = "none", quantization: Quantization = "none"
) -> Prior:
    """The prior on the host's device: its VAE at once, its denoiser and text encoders when they are first asked for.

    weights: a base by name, `embedded` (the mini VAE and a small denoiser), or `auto`: what is found of
    the family, else embedded. dtype: `auto` (the host's), fp32, bf16, fp16; a VAE that overflows in fp16 stays in fp32.
    quantization: what the denoiser's weights become when they are read, where they are published ones of a family that goes with it.
    Raises WeightsError, BadValueError, MissingPackageError and OutOfMemoryError.
    """
    chosen = DTYPES.get(dtype, current_host().dtype)
    base = _base(family, weights)
    if base is None:
        return read_prior(embedded.PRIORS[family_of(family).name], chosen, spared(offload))
    schedule, vae = base.schedule(), base.vae()
    require_possible(family_of(family), base.stored, quantization, offload, base.name)
    offload = fitting_offload(base.stored, quantization, offload)
    codec = LatentCodec(place(vae_of(vae), vae_dtype(vae, chosen), offload))

    def read_denoiser() -> nn.Module:
        network = build_denoiser(base.denoiser(), family_of(family), base.stored, quantization, chosen)
        return place(network, chosen, offload)

    return Prior(base.family, codec, cache(read_denoiser), base.prompt_encoder(), schedule, chosen, offload)


def _base(family: str, weights: str) -> Base | None:
    """None for the embedded prior."""
    if weights not in ("auto", "embedded"):
        return find_base(family, weights)
    base = search_base(family) if weights == "auto" else None
    if base is None:
        log.info("Prior %s: the small embedded one.", family)
    return base


def read_prior(path: Path, dtype: torch.dtype, offload: Offload) -> Prior:
    """The prior of a file of ours: a denoiser below `unet.` or `transformer.`, as its family calls it, a ByteTextEncoder below `text.`,
    and in the metadata `kintsugi` what both are built from, the family, the first and last beta of one that follows no flow, the
    VAE, which is the embedded one, and where there is a bound the largest side. Raises WeightsError."""
    texts, config = read_weights(path, "text.")
    family = family_of(config["family"])
    codec = LatentCodec(place(read_vae(config["vae"]), dtype, offload))
    text_encoder = build_network(lambda: ByteTextEncoder(**config["text"]), texts, str(path))

    def read_denoiser() -> nn.Module:
        tensors, _ = read_weights(path, f"{family.component}.")
        file = NetworkFile(tensors, config[family.component], str(path))
        return place(build_denoiser(file, family, "whole", "none", dtype), dtype, offload)

    schedule = flow_schedule() if family.is_flow else None
    if config.get("betas"):
        schedule = ddpm_schedule(scaled_linear_betas(*config["betas"]))
    return Prior(family.name, codec, cache(read_denoiser), text_encoder.encode, schedule, dtype, offload, config.get("largest_side"))


def read_vae(where: Path | str) -> AutoencoderKL:
    """AutoencoderKL in float32 from a file of ours, a diffusers folder, or a single file whose configuration is in its
    metadata; `embedded` is the mini VAE. Raises WeightsError."""
    return vae_of(read_vae_network(embedded.VAE if where == "embedded" else Path(where)))


def vae_of(file: NetworkFile) -> AutoencoderKL:
    """The AutoencoderKL that a base's vae() describes, float32. Raises WeightsError for tensors that do not fit."""
    return build_network(lambda: build_vae(file.config), file.tensors, file.where)
