"""Networks in single files: checkpoints that hold all parts of a prior, each below a prefix of its own, and files of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .configs import shipped_config
from .families import Family, Shapes, traits_in_tensors, wrong_family
from .files import NetworkFile, read_weights
from .flux_layouts import flux_in_tensors
from .flux_names import flux_names, has_original_names
from .gguf_files import gguf_shapes, is_gguf, read_gguf
from .inspection import tensor_shapes
from .original_names import Tensors, open_clip_names, sd3_names, unet_names, vae_names
from .scaled_fp8 import unscaled

DENOISER_PREFIX = "model.diffusion_model."
VAE_PREFIXES = ("first_stage_model.", "vae.")
# Text encoders in checkpoints of SDXL, CLIP-L in transformers' names and OpenCLIP-G in its own, and in ComfyUI's of Flux.
SDXL_CLIP_L, SDXL_CLIP_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
FLUX_CLIP_L, FLUX_T5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
BITSANDBYTES_MARK = ".quant_state.bitsandbytes__"
# What these were trained with and no prompt needs: a table of positions, the first one's projection, the temperature.
UNUSED_BY_PROMPTS = ("text_model.embeddings.position_ids", "text_projection.weight", "logit_scale")
# One table under two names, of which files have one or both.
T5_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")


def denoiser_shapes(path: Path) -> Shapes:
    """Shapes of a file's denoiser by name, from its header; of all its tensors where the file is no whole checkpoint."""
    shapes = gguf_shapes(path) if is_gguf(path) else tensor_shapes(path)
    prefix = _prefix_of(shapes, (DENOISER_PREFIX,))
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def has_vae(path: Path) -> bool:
    """Whether a file is a VAE or a checkpoint that holds its own."""
    shapes = {} if is_gguf(path) else tensor_shapes(path)
    return any(f"{prefix}decoder.conv_in.weight" in shapes for prefix in (*VAE_PREFIXES, ""))


def has_text_parts(path: Path, prefixes: Iterable[str]) -> bool:
    """Whether a file is a checkpoint with a text encoder below each of the prefixes."""
    shapes = {} if is_gguf(path) else tensor_shapes(path)
    return all(any(name.startswith(prefix) for name in shapes) for prefix in prefixes)


def require_file_of(path: Path, family: Family) -> None:
    """Raise WeightsError when a file's denoiser is of another family, or quantised in a way that is not read; its weights are not
    read. Raises MissingPackageError for a GGUF file where its package is missing."""
    if is_gguf(path) and not family.is_quantised:
        raise WeightsError(f"GGUF files are not read for {family.name}.", where=str(path), way_out=family.remedy)
    shapes = denoiser_shapes(path)
    if any(BITSANDBYTES_MARK in name for name in shapes):
        raise WeightsError(
            "was quantised by bitsandbytes in the names of the release, which is not read.",
            where=str(path),
            way_out="Choose a diffusers folder saved in nf4, a GGUF file, or a file that is not quantised and quantization nf4.",
        )
    if not family.has_tensors(shapes):
        raise wrong_family(family, traits_in_tensors(shapes), str(path))


def read_denoiser(path: Path, family: Family) -> NetworkFile:
    """The transformer or U-Net of a single file, diffusers names. Raises WeightsError and MissingPackageError."""
    require_file_of(path, family)
    tensors, metadata = read_gguf(path) if is_gguf(path) else read_weights(path, _prefix_of(tensor_shapes(path), (DENOISER_PREFIX,)))
    config = metadata.get(family.component) or shipped_denoiser_config(family, tensors)
    if any(name.startswith("joint_blocks.") for name in tensors):
        tensors = _converted(tensors, sd3_names, path)
    elif any(name.startswith("input_blocks.") for name in tensors):
        tensors = _converted(tensors, lambda found: unet_names(found, config), path)
    elif has_original_names(tensors):
        tensors = flux_names(unscaled(tensors))
    kept = {name: tensor for name, tensor in tensors.items() if name not in family.unused}
    return NetworkFile(kept, config, str(path))


def shipped_denoiser_config(family: Family, tensors: Tensors) -> dict[str, Any]:
    """That of the family, but for what its models differ in."""
    config = shipped_config(family.config)
    flux = flux_in_tensors({name: tensor.shape for name, tensor in tensors.items()})
    return config if flux is None else {**config, "guidance_embeds": flux.has_guidance}


def read_vae_file(path: Path, default: str | None) -> NetworkFile:
    """The VAE of a single file, or of the checkpoint it is part of, diffusers names. Raises WeightsError.

    default: the shipped configuration of a file that brings none.
    """
    tensors, metadata = read_weights(path, _prefix_of(tensor_shapes(path), VAE_PREFIXES))
    config = metadata.get("vae") or (shipped_config(default) if default else None)
    if not isinstance(config, dict) or "decoder.conv_in.weight" not in tensors:
        raise WeightsError(
            "holds no VAE that can be read by itself." if "decoder.conv_in.weight" in tensors else "holds no VAE.",
            where=str(path),
            way_out="Choose a diffusers folder with a config.json, or a file that `kintsugi train mini-vae` exported.",
        )
    if any(".mid.block_" in name for name in tensors):
        tensors = _converted(tensors, lambda found: vae_names(found, config), path)
    return NetworkFile(tensors, config, str(path))


def read_clip_l(path: Path) -> NetworkFile:
    """CLIP-L in a checkpoint or a file of its own, names of transformers' CLIPTextModel. Raises WeightsError."""
    tensors, metadata = read_weights(path, _prefix_of(tensor_shapes(path), (SDXL_CLIP_L, FLUX_CLIP_L)))
    config = metadata.get("text_encoder") or shipped_config("sdxl-text-encoder")
    return NetworkFile(_without_unused(tensors), config, str(path))


def read_clip_g(path: Path) -> NetworkFile:
    """SDXL's second text encoder in a checkpoint, names of transformers' CLIPTextModelWithProjection. Raises WeightsError."""
    tensors, metadata = read_weights(path, SDXL_CLIP_G)
    config = metadata.get("text_encoder_2") or shipped_config("sdxl-text-encoder-2")
    return NetworkFile(_converted(_without_unused(tensors), open_clip_names, path), config, str(path))


def read_t5(path: Path) -> NetworkFile:
    """The encoder of T5 v1.1 XXL in a checkpoint or a file of its own, names of transformers' T5EncoderModel. Raises WeightsError."""
    tensors, metadata = read_weights(path, _prefix_of(tensor_shapes(path), (FLUX_T5,)))
    config = metadata.get("text_encoder_2") or shipped_config("flux-text-encoder-2")
    found = unscaled(tensors)
    shared = next((found[name] for name in T5_EMBEDDINGS if name in found), None)
    embeddings = {} if shared is None else dict.fromkeys(T5_EMBEDDINGS, shared)
    return NetworkFile({**found, **embeddings}, config, str(path))


def _without_unused(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in UNUSED_BY_PROMPTS}


def _prefix_of(shapes: Shapes, prefixes: tuple[str, ...]) -> str:
    return next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in shapes)), "")


def _converted(tensors: Tensors, convert: Callable[[Tensors], Tensors], path: Path) -> Tensors:
    """convert(tensors), which fails with the name of the first tensor it misses."""
    try:
        return convert(tensors)
    except (KeyError, IndexError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "of a block"
        raise WeightsError(
            f"tensor {missing} is missing.", where=str(path), way_out="Half a file, or another model: fetch it again."
        ) from error
