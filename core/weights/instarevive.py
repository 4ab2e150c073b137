"""InstaRevive's weights: the published transformer with the VAE and text encoder of PixArt-alpha, or one whole file of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from ..methods.instarevive import PRESETS, InstaRevive, OneStepConstants
from ..methods.one_step import Generator
from ..models.codec import LatentCodec
from ..models.mini import build_pixart
from ..models.offload import place
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from .bases import Base, find_base
from .configs import shipped_config
from .empty import EmptyMethod
from .families import Shapes
from .files import build_network, load_strictly, read_weights
from .options import LoadOptions
from .priors import read_vae, vae_of
from .students import Student, read_student

KIND = "instarevive"
PUBLISHED = "instarevive/InstaRevive_v1.safetensors"
PROMPTS = "prompts.safetensors"
# Files beside a student that are no student.
COMPANIONS = frozenset({PROMPTS})
FAMILY = "pixart-alpha"
PROMPT_TOKENS = 300
CONVOLUTION = "concat_conv."


def read_generator(student: Path, options: LoadOptions) -> Generator:
    """The restorer in that file: a whole one of ours, which holds its prompt, or the transformer alone, as published.

    The latter takes its VAE from options.base, and the embedding of options.preset from prompts.safetensors beside it or from
    the base's text encoder; it is of the published size where its metadata names no other. Raises WeightsError.
    """
    file = read_student(student, KIND)
    whole = any(name.startswith("transformer.") for name in file.tensors)
    method, prior = (_whole if whole else _published)(file, options)
    if options.fold_constants:
        method.fold()
    return Generator(f"{KIND} ({student.stem})", place(method, options.dtype, options.offload), prior, file.config.get("border", 0))


def empty_method(config: dict[str, Any], shapes: Shapes) -> EmptyMethod:
    """InstaRevive of a file with that metadata and those tensors, on the meta device; the full size where it names no other."""
    network = _network_config(config)
    with torch.device("meta"):
        tokens = torch.empty(shapes.get("prompt", (1, PROMPT_TOKENS, network["caption_channels"])))
        return EmptyMethod(InstaRevive(build_pixart(network), PromptEmbedding(tokens), OneStepConstants()))


def _network_config(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("transformer") or shipped_config("pixart-transformer")


def _whole(student: Student, options: LoadOptions) -> tuple[InstaRevive, Prior]:
    """Tensors `transformer.*`, prompt, prompt_mask and, where noise enters, concat_conv.*; the metadata names the VAE: a file
    beside it, or the embedded one."""
    prompt = PromptEmbedding(student.take("prompt"), mask=student.take("prompt_mask"))
    codec = LatentCodec(read_vae(student.vae_place()))
    return _method(student, codec, lambda width: _fitting(prompt, width, student.path), options), Prior(FAMILY, _placed(codec, options))


def _published(student: Student, options: LoadOptions) -> tuple[InstaRevive, Prior]:
    """The bare transformer with what else it needs from the base."""
    base = find_base(FAMILY, options.base)
    codec = LatentCodec(vae_of(base.vae()))
    prompt = partial(_preset_prompt, student.path.with_name(PROMPTS), options.preset, base)
    return _method(student, codec, prompt, options), Prior(FAMILY, _placed(codec, options), prompt_encoder=base.prompt_encoder())


def _placed(codec: LatentCodec, options: LoadOptions) -> LatentCodec:
    return LatentCodec(place(codec.vae, options.dtype, options.offload))


def _method(student: Student, codec: LatentCodec, prompt: Callable[[int], PromptEmbedding], options: LoadOptions) -> InstaRevive:
    """prompt: the embedding for a width of its tokens, asked for when the networks are known to fit, since a text encoder may
    have to compute it."""
    constants = student.constants(OneStepConstants)
    named = {name.removeprefix("transformer."): tensor for name, tensor in student.tensors.items()}
    entering = [name for name in named if name.startswith(CONVOLUTION)] if constants.noise_input else []
    convolving = {name.removeprefix(CONVOLUTION): named.pop(name).to(options.dtype) for name in entering}
    transformer = build_network(partial(build_pixart, _network_config(student.config)), named, student.where, options.dtype)
    channels = int(transformer.config.in_channels)
    if codec.channels != channels:
        raise WeightsError(
            f"takes latents of {channels} channels, and the VAE makes {codec.channels}.",
            where=student.where,
            way_out="Choose the base that belongs to it.",
        )
    method = InstaRevive(transformer, prompt(int(transformer.config.caption_channels)), constants)
    if method.concat_conv is not None:
        load_strictly(method.concat_conv, convolving, f"{student.where}: concat_conv")
    return method


def _preset_prompt(stored: Path, preset: str, base: Base, width: int) -> PromptEmbedding:
    """The stored embedding `<preset>` with its mask `<preset>.mask`, else what the base's text encoder makes of the preset's
    text. Raises WeightsError where there is neither."""
    name = preset.replace(" ", "_")
    tensors = read_weights(stored)[0] if stored.is_file() else {}
    if name in tensors:
        return _fitting(PromptEmbedding(tensors[name], mask=tensors.get(f"{name}.mask")), width, stored)
    encode = base.prompt_encoder()
    if encode is None:
        raise WeightsError(
            f"has no embedding of the preset {preset!r}, and {base.name} has no text encoder to make one.",
            where=str(stored),
            way_out=f"Put a file with the tensors {name} [1, tokens, {width}] and {name}.mask [1, tokens] there, or PixArt's "
            "text_encoder and tokenizer into the base's folder.",
        )
    return _fitting(encode(PRESETS[preset]), width, Path(base.name))


def _fitting(prompt: PromptEmbedding, width: int, where: Path) -> PromptEmbedding:
    """The prompt itself. Raises WeightsError for tokens of another width and a mask of another length."""
    tokens = list(prompt.tokens.shape)
    if prompt.tokens.ndim != 3 or tokens[0] != 1 or tokens[2] != width:
        fault = f"the prompt embedding is {tokens}, expected [1, tokens, {width}]."
    elif prompt.mask is not None and list(prompt.mask.shape) != tokens[:2]:
        fault = f"the prompt's mask is {list(prompt.mask.shape)}, expected {tokens[:2]}."
    else:
        return prompt
    raise WeightsError(fault, where=str(where), way_out="Take the embedding that belongs to the student.")
