"""GenDR's weights: our mini file, or the layout that the manifest of its full size proposes (nothing is published)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..methods.gendr import GenDR, OneStepConstants
from ..methods.one_step import Generator
from ..models.codec import LatentCodec
from ..models.mini import build_unet
from ..models.offload import place
from ..models.prior import Prior
from .configs import shipped_config
from .files import build_network, read_weights
from .options import LoadOptions
from .priors import read_vae

KIND = "gendr"
PUBLISHED = "gendr/generator.safetensors"
# Files beside a student that are no student.
COMPANIONS = frozenset({"prompts.safetensors", "diffusion_pytorch_model.safetensors"})
VAE_FOLDER = "vae-kl-f8-d16"


def read_generator(student: Path, options: LoadOptions) -> Generator:
    """The restorer in that file. Beside a file without configuration (the full size) lie prompts.safetensors and the folder
    vae-kl-f8-d16. Raises WeightsError."""
    tensors, config = read_weights(student)
    if config.get("kind", KIND) != KIND:
        raise WeightsError(f"holds {config['kind']}, not {KIND}.", where=str(student), way_out="Choose a file of that method.")
    unet = {name.removeprefix("unet."): tensor for name, tensor in tensors.items() if name != "prompt"}
    network = build_network(lambda: build_unet(config.get("unet") or shipped_config("gendr-unet")), unet, str(student))
    method = GenDR(network, _prompt(tensors, network, student), OneStepConstants(**config.get("one_step", {})))
    if options.fold_constants:
        method.fold()
    codec = LatentCodec(place(read_vae(_vae_place(config, student)), options.dtype))
    return Generator(
        f"{KIND} ({student.stem})", place(method, options.dtype, options.offload), Prior("sd21-vae16", codec), config.get("border", 0)
    )


def _prompt(tensors: dict[str, Tensor], unet: Any, student: Path) -> Tensor:
    """The stored positive embedding [1, N, D], from the student's own file or from the one beside it."""
    beside = student.with_name("prompts.safetensors")
    stored = {"positive": tensors["prompt"]} if "prompt" in tensors else read_weights(beside)[0]
    where = str(student if "prompt" in tensors else beside)
    if "positive" not in stored:
        raise WeightsError("tensor positive is missing.", where=where, way_out="Take the file that belongs to the student.")
    width = unet.config.cross_attention_dim
    if stored["positive"].ndim != 3 or stored["positive"].shape[-1] != width:
        raise WeightsError(
            f"the prompt embedding is {list(stored['positive'].shape)}, expected [1, tokens, {width}].",
            where=where, way_out="Take the embedding that belongs to the student.",
        )  # fmt: skip
    return stored["positive"].float()


def _vae_place(config: dict[str, Any], student: Path) -> Path | str:
    """Our own files name a VAE beside them or the embedded one; the full size comes with a folder."""
    name = config.get("vae", "embedded" if "unet" in config else VAE_FOLDER)
    return "embedded" if name == "embedded" else student.with_name(name)
