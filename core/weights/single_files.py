"""Networks in single files: the original layouts of checkpoints, renamed to diffusers names by diffusers' own converters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from .configs import shipped_config
from .families import Family, Shapes
from .files import NetworkFile, read_weights
from .inspection import tensor_shapes

DENOISER_PREFIX = "model.diffusion_model."
VAE_PREFIXES = ("first_stage_model.", "vae.")

Tensors = dict[str, Tensor]


def denoiser_shapes(path: Path) -> Shapes:
    """Shapes of a file's denoiser by name, from its header; of all its tensors where the file is no whole checkpoint."""
    shapes = tensor_shapes(path)
    prefix = _prefix_of(shapes, (DENOISER_PREFIX,))
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def has_vae(path: Path) -> bool:
    """Whether a file is a VAE or a checkpoint that holds its own."""
    shapes = tensor_shapes(path)
    return any(f"{prefix}decoder.conv_in.weight" in shapes for prefix in (*VAE_PREFIXES, ""))


def read_denoiser(path: Path, family: Family) -> NetworkFile:
    """The transformer or U-Net of a single file, diffusers names. Raises WeightsError."""
    tensors, config = read_weights(path, _prefix_of(tensor_shapes(path), (DENOISER_PREFIX,)))
    if not family.has_tensors({name: tensor.shape for name, tensor in tensors.items()}):
        raise WeightsError(f"holds no {family.network} of {family.name}.", where=str(path), way_out=family.remedy)
    if any(name.startswith("joint_blocks.") for name in tensors):
        tensors = _converted(tensors, _sd3_names, path)
    kept = {name: tensor for name, tensor in tensors.items() if name not in family.unused}
    return NetworkFile(kept, config.get(family.component) or shipped_config(family.config), str(path))


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
        tensors = _converted(tensors, lambda found: _ldm_vae_names(found, config, path), path)
    return NetworkFile(tensors, config, str(path))


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


def _sd3_names(tensors: Tensors) -> Tensors:
    """Whatever the converter leaves over keeps its name, so that the strict reader refuses it."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers as convert

    rest = dict(tensors)
    return {**convert(rest), **rest}


def _ldm_vae_names(tensors: Tensors, config: dict[str, Any], path: Path) -> Tensors:
    """The converter passes over what it does not know; unknown tensors are looked for by count."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    converted: Tensors = {name: tensor for name, tensor in convert_ldm_vae_checkpoint(tensors, config).items() if tensor is not None}
    if len(converted) != len(tensors):
        known = {tensor.data_ptr() for tensor in converted.values()}
        unknown = [name for name, tensor in tensors.items() if tensor.data_ptr() not in known]
        raise WeightsError(f"tensor {unknown[0]} is unknown.", where=str(path), way_out="The file is of another model.")
    return converted
