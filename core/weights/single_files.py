"""Networks in single files: checkpoints that hold all parts of a prior, each below a prefix of its own, and files of one network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import WeightsError
from .configs import shipped_config
from .families import Family, Shapes, wrong_family
from .files import NetworkFile, read_weights
from .inspection import tensor_shapes
from .original_names import Tensors, open_clip_names, sd3_names, unet_names, vae_names
from .unets import unet_in_tensors

DENOISER_PREFIX = "model.diffusion_model."
VAE_PREFIXES = ("first_stage_model.", "vae.")
# SDXL's two text encoders: CLIP-L in transformers' names, OpenCLIP-G in its own.
CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
CLIP_G_PREFIX = "conditioner.embedders.1.model."
# What these were trained with and no prompt needs: a table of positions, the first one's projection, the temperature.
UNUSED_BY_PROMPTS = ("text_model.embeddings.position_ids", "text_projection.weight", "logit_scale")


def denoiser_shapes(path: Path) -> Shapes:
    """Shapes of a file's denoiser by name, from its header; of all its tensors where the file is no whole checkpoint."""
    shapes = tensor_shapes(path)
    prefix = _prefix_of(shapes, (DENOISER_PREFIX,))
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def has_vae(path: Path) -> bool:
    """Whether a file is a VAE or a checkpoint that holds its own."""
    shapes = tensor_shapes(path)
    return any(f"{prefix}decoder.conv_in.weight" in shapes for prefix in (*VAE_PREFIXES, ""))


def has_sdxl_encoders(path: Path) -> bool:
    """Whether a file is a checkpoint with both text encoders of SDXL."""
    shapes = tensor_shapes(path)
    return all(any(name.startswith(prefix) for name in shapes) for prefix in (CLIP_L_PREFIX, CLIP_G_PREFIX))


def require_file_of(path: Path, family: Family) -> None:
    """Raise WeightsError when a file's denoiser is of another family; its weights are not read."""
    shapes = denoiser_shapes(path)
    if not family.has_tensors(shapes):
        raise wrong_family(family, unet_in_tensors(shapes), str(path))


def read_denoiser(path: Path, family: Family) -> NetworkFile:
    """The transformer or U-Net of a single file, diffusers names. Raises WeightsError."""
    require_file_of(path, family)
    tensors, metadata = read_weights(path, _prefix_of(tensor_shapes(path), (DENOISER_PREFIX,)))
    config = metadata.get(family.component) or shipped_config(family.config)
    if any(name.startswith("joint_blocks.") for name in tensors):
        tensors = _converted(tensors, sd3_names, path)
    elif any(name.startswith("input_blocks.") for name in tensors):
        tensors = _converted(tensors, lambda found: unet_names(found, config), path)
    kept = {name: tensor for name, tensor in tensors.items() if name not in family.unused}
    return NetworkFile(kept, config, str(path))


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
    """SDXL's first text encoder in a checkpoint, names of transformers' CLIPTextModel. Raises WeightsError."""
    tensors, metadata = read_weights(path, CLIP_L_PREFIX)
    config = metadata.get("text_encoder") or shipped_config("sdxl-text-encoder")
    return NetworkFile(_without_unused(tensors), config, str(path))


def read_clip_g(path: Path) -> NetworkFile:
    """SDXL's second text encoder in a checkpoint, names of transformers' CLIPTextModelWithProjection. Raises WeightsError."""
    tensors, metadata = read_weights(path, CLIP_G_PREFIX)
    config = metadata.get("text_encoder_2") or shipped_config("sdxl-text-encoder-2")
    return NetworkFile(_converted(_without_unused(tensors), open_clip_names, path), config, str(path))


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
