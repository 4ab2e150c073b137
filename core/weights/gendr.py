"""GenDR's weights: our mini file, or the layout that the manifest of its full size proposes (nothing is published)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..methods.gendr import GenDR, OneStepConstants
from ..methods.one_step import Generator
from ..models.codec import LatentCodec
from ..models.mini import build_unet
from ..models.offload import place
from ..models.prior import Prior
from .bases import search_base
from .configs import shipped_config
from .empty import EmptyMethod
from .families import Shapes
from .files import build_network, read_weights
from .options import LoadOptions
from .priors import read_vae
from .students import read_student

KIND = "gendr"
PUBLISHED = "gendr/generator.safetensors"
# Files beside a student that are no student: its prompts and VAE, and what only training uses.
COMPANIONS = frozenset(
    {
        "prompts.safetensors", "diffusion_pytorch_model.safetensors",
        "score_real_lora.safetensors", "score_fake_lora.safetensors", "repa_projector.safetensors", "disc_heads.safetensors",
    }
)  # fmt: skip
PROMPTS = "prompts.safetensors"
VAE_FOLDER = "vae-kl-f8-d16"
FAMILY = "sd21-vae16"
PROMPT_TOKENS = 77


def read_generator(student: Path, options: LoadOptions) -> Generator:
    """The restorer in that file: a whole one of ours, which holds its prompt, or the layout of the full size.

    Beside the latter lie prompts.safetensors and the folder vae-kl-f8-d16; where its metadata has no configuration, it is
    Stable Diffusion 2.1 with 16 channels. Text encoders come from options.base. Raises WeightsError.
    """
    file = read_student(student, KIND)
    stored = file.tensors.pop("prompt", None)
    named = {name.removeprefix("unet."): tensor for name, tensor in file.tensors.items()}
    unet = build_network(partial(build_unet, _unet_config(file.config)), named, file.where)
    prompt, where = (_prompt_beside(student), student.with_name(PROMPTS)) if stored is None else (stored, student)
    _require_width(prompt, unet.config.cross_attention_dim, where)
    method = GenDR(unet, prompt.float(), file.constants(OneStepConstants))
    if options.fold_constants:
        method.fold()
    vae = file.vae_place("embedded" if "unet" in file.config else VAE_FOLDER)
    codec = LatentCodec(place(read_vae(vae), options.dtype, options.offload))
    base = search_base(FAMILY, options.base) if stored is None else None
    prior = Prior(FAMILY, codec, prompt_encoder=base.prompt_encoder() if base else None)
    return Generator(f"{KIND} ({student.stem})", place(method, options.dtype, options.offload), prior, file.config.get("border", 0))


def empty_method(config: dict[str, Any], shapes: Shapes) -> EmptyMethod:
    """GenDR of a file with that metadata and those tensors, on the meta device; the full size where it names no U-Net."""
    unet = _unet_config(config)
    with torch.device("meta"):
        prompt = torch.empty(shapes.get("prompt", (1, PROMPT_TOKENS, unet["cross_attention_dim"])))
        return EmptyMethod(GenDR(build_unet(unet), prompt, OneStepConstants()))


def _unet_config(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("unet") or shipped_config("gendr-unet")


def _prompt_beside(student: Path) -> Tensor:
    """The positive embedding of the file beside a student."""
    path = student.with_name(PROMPTS)
    stored, _ = read_weights(path)
    if "positive" not in stored:
        raise WeightsError("tensor positive is missing.", where=str(path), way_out="Take the file that belongs to the student.")
    return stored["positive"]


def _require_width(prompt: Tensor, width: int, where: Path) -> None:
    if prompt.ndim != 3 or prompt.shape[0] != 1 or prompt.shape[-1] != width:
        raise WeightsError(
            f"the prompt embedding is {list(prompt.shape)}, expected [1, tokens, {width}].",
            where=str(where),
            way_out="Take the embedding that belongs to the student.",
        )
