"""Original layouts of checkpoints in diffusers names, by diffusers' own converters.

What a converter passes over keeps its name, so that the strict reader refuses it. A tensor that it needs and misses is a KeyError.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]


def sd3_names(tensors: Tensors) -> Tensors:
    """Stable Diffusion 3's transformer; the converter takes what it knows."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers as convert

    rest = dict(tensors)
    return {**convert(rest), **rest}


def unet_names(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """A U-Net of latent diffusion; config is what diffusers builds it from."""
    from diffusers.loaders.single_file_utils import LDM_UNET_KEY, convert_ldm_unet_checkpoint

    converted = convert_ldm_unet_checkpoint({f"{LDM_UNET_KEY}{name}": tensor for name, tensor in tensors.items()}, config)
    return _with_rest(converted, tensors)


def vae_names(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """A VAE of latent diffusion; config is what diffusers builds it from."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    # Weights of attention are 1 x 1 convolutions there.
    flat = {name: tensor[:, :, 0, 0] if ".attn_" in name and tensor.ndim == 4 else tensor for name, tensor in tensors.items()}
    return _with_rest(convert_ldm_vae_checkpoint(flat, config), flat)


def open_clip_names(tensors: Tensors) -> Tensors:
    """OpenCLIP's text encoder with its projection, as transformers calls them."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING, convert_open_clip_checkpoint

    if "text_projection" not in tensors:
        raise KeyError("text_projection")
    known = DIFFUSERS_TO_LDM_MAPPING["openclip"]["layers"].values()
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("transformer.") and name not in known}
    return {**convert_open_clip_checkpoint(None, tensors, prefix=""), **rest}


def _with_rest(converted: dict[str, Tensor | None], tensors: Tensors) -> Tensors:
    found = {name: tensor for name, tensor in converted.items() if tensor is not None}
    used = {id(tensor) for tensor in found.values()}
    return {**found, **{name: tensor for name, tensor in tensors.items() if id(tensor) not in used}}
