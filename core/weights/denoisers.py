"""A prior's transformer or U-Net from its file, with its weights whole or in the quantised form they are stored in or asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import BadValueError
from ..models.offload import Offload, spared
from .families import Family
from .files import NetworkFile, build_network
from .gguf_files import build_gguf
from .nf4 import Form, Quantization, build_quantised, build_saved, require_package

# Where weights of a form may wait. GGUF's are plain bytes; bitsandbytes' are bound to the device that they were brought to first.
OFFLOADS: dict[Form, tuple[Offload, ...]] = {"gguf": ("none", "model", "group"), "nf4": ("none",)}


def require_possible(family: Family, stored: Form, quantization: Quantization, offload: Offload, where: str) -> None:
    """Raise BadValueError for a quantization or an offload that weights stored in that form cannot have, and MissingPackageError for one
    whose package is missing."""
    if quantization != "none" and not family.is_quantised:
        raise BadValueError(f"{family.name} is not quantised.", where=where, way_out="Choose quantization none.")
    if quantization != "none" and stored not in ("whole", quantization):
        raise BadValueError(f"its weights are quantised already ({stored}).", where=where, way_out="Choose quantization none.")
    form = _form(stored, quantization)
    if offload not in OFFLOADS.get(form, (offload,)):
        possible = " or ".join(OFFLOADS[form])
        raise BadValueError(
            f"weights in {form} do not go with offload {offload!r}.", where=where, way_out=f"Choose offload {possible}: they are small."
        )
    if form == "nf4":
        require_package(where)


def fitting_offload(stored: Form, quantization: Quantization, offload: Offload) -> Offload:
    """The offload asked for, or what the host wants in its place where weights stored in that form can have it."""
    wanted = spared(offload)
    return wanted if wanted in OFFLOADS.get(_form(stored, quantization), (wanted,)) else offload


def _form(stored: Form, quantization: Quantization) -> Form:
    return stored if quantization == "none" else quantization


def network_of(family: Family, config: dict[str, Any]) -> nn.Module:
    """The family's diffusers class of that configuration, randomly initialised, float32."""
    import diffusers

    network: nn.Module = getattr(diffusers, family.network).from_config(config)
    return network


def build_denoiser(file: NetworkFile, family: Family, stored: Form, quantization: Quantization, dtype: torch.dtype) -> nn.Module:
    """The family's network with exactly the file's tensors, computing in dtype. Raises WeightsError."""

    def build() -> nn.Module:
        return network_of(family, file.config)

    if stored == "whole" and quantization == "none":
        return build_network(build, file.tensors, file.where, dtype)
    builder = {"gguf": build_gguf, "nf4": build_saved, "whole": build_quantised}[stored]
    return builder(build, file.tensors, file.where, dtype)
