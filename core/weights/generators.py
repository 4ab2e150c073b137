"""One-step generators from their weights files: published layout, our own, or embedded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..errors import BadValueError, WeightsError
from ..methods.gendr import GenDR, OneStepConstants
from ..methods.one_step import Generator
from ..models.codec import LatentCodec
from ..models.mini import build_unet
from ..models.prior import Prior
from ..runtime import DTYPES, current_host
from . import embedded
from .files import load_strictly, read_weights
from .locations import find_files, find_weights
from .priors import read_vae

METHODS = ("gendr",)
# The file below `kintsugi/` that `auto` looks for.
PUBLISHED = {"gendr": "gendr/generator.safetensors"}

log = logging.getLogger("kintsugi")

Network = TypeVar("Network", bound=nn.Module)


def weights_choices() -> list[str]:
    """What the weights widget of Load One-Step Generator offers: auto, embedded, then the files of every method."""
    files = [name for method in METHODS for name in find_files("kintsugi") if name.startswith(f"{method}/")]
    return ["auto", "embedded", *files]


def load_generator(method: str, weights: str = "auto", dtype: str = "auto") -> Generator:
    """The generator on the host's device.

    weights: a file of `kintsugi/<method>/` by name, `embedded`, or `auto`: the method's own folder when it holds the
    published file, else embedded. dtype: `auto` (the host's), fp32, bf16, fp16. Raises WeightsError.
    """
    if method not in METHODS:
        raise BadValueError(f"there is no one-step method {method!r}.", way_out=f"Known: {', '.join(METHODS)}.")
    return load_generator_files(method, _student_file(method, weights), embedded.VAE, dtype)


def _student_file(method: str, weights: str) -> Path:
    if weights == "auto":
        published = PUBLISHED[method]
        weights = published if published in find_files("kintsugi") else "embedded"
        log.info("Weights of %s: %s.", method, "the small embedded ones" if weights == "embedded" else weights)
    return embedded.GENERATORS[method] if weights == "embedded" else find_weights("kintsugi", weights)


def load_generator_files(method: str, student: Path, vae: Path, dtype: str) -> Generator:
    """The generator whose student and VAE are these files."""
    tensors, config = read_weights(student)
    if config.get("kind") != method:
        raise WeightsError(
            f"holds {config.get('kind', 'something else')}, not {method}.", where=str(student), way_out="Choose a file of that method."
        )
    precision = DTYPES.get(dtype, current_host().dtype)
    network = GenDR(
        build_unet(config["unet"]),
        torch.zeros_like(tensors.get("prompt", torch.zeros(1)), dtype=torch.float32),
        OneStepConstants(**config["one_step"]),
    )
    load_strictly(network, {name: tensor.float() for name, tensor in tensors.items()}, str(student))
    codec = LatentCodec(_placed(read_vae(str(vae)), precision))
    return Generator(f"{method} ({student.stem})", _placed(network, precision), Prior("mini", codec), config.get("border", 0))


def _placed(network: Network, dtype: torch.dtype) -> Network:
    """On the host's device, ready for inference. nn.Module's own `to`: that of diffusers warns of an empty list."""
    nn.Module.to(network, current_host().device, dtype)
    return nn.Module.to(network, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
