"""Tiny SDXL as it is published: a diffusers folder, and a checkpoint of original names with both text encoders in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from published_layouts import original_vae_names, random_network, vae_config, write_folder, write_single_file
from tiny_text_encoders import clip_config, write_clip_tokenizer
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

SDXL_CONFIG: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16, 16], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 1, 2],
    "norm_num_groups": 4, "cross_attention_dim": 20, "attention_head_dim": [2, 2, 4], "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 12 + 6 * 4,
}  # fmt: skip
SDXL_VAE = vae_config(4, scaling_factor=0.13025, shift_factor=None, force_upcast=True)
SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
}  # fmt: skip


def sdxl_parts() -> dict[str, Any]:
    """U-Net, VAE and text encoders of widths 8 and 12, every tensor drawn, the same at every call."""
    return {
        "unet": random_network("UNet2DConditionModel", SDXL_CONFIG),
        "vae": random_network("AutoencoderKL", SDXL_VAE),
        "text_encoder": _drawn(CLIPTextModel(clip_config(8, layers=3, eos_token_id=2))),
        "text_encoder_2": _drawn(CLIPTextModelWithProjection(clip_config(12, layers=4, eos_token_id=2, hidden_act="gelu"))),
    }


def _drawn(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(8)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network.eval()


def write_sdxl_folder(folder: Path, **scheduler: Any) -> Path:
    """scheduler: entries of scheduler_config.json that differ from the release's; None leaves one out."""
    write_folder(folder, sdxl_parts())
    write_sdxl_tokenizers(folder)
    (folder / "scheduler").mkdir()
    settings = {name: value for name, value in {**SCHEDULER, **scheduler}.items() if value is not None}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    return folder


def write_sdxl_tokenizers(folder: Path) -> None:
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", padding="!")


def write_sdxl_checkpoint(path: Path, **changes: Tensor | None) -> Path:
    """In one file, as it was released. changes: tensors in place of others or beside them; None leaves one out."""
    parts = sdxl_parts()
    configs = {name: parts[name].config.to_dict() for name in ("text_encoder", "text_encoder_2")}
    tensors = {**original_sdxl_names(parts), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return write_single_file(path, kept, {"unet": SDXL_CONFIG, "vae": SDXL_VAE, **configs})


def original_sdxl_names(parts: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint, with those that no inference needs."""
    unet, vae = parts["unet"], parts["vae"]
    clip_l = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in parts["text_encoder"].state_dict().items()}
    clip_l["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    found = {
        "model.diffusion_model.": original_unet_names(unet.state_dict(), len(unet.down_blocks), unet.config.layers_per_block),
        "first_stage_model.": original_vae_names(vae.state_dict(), len(vae.encoder.down_blocks)),
        "conditioner.embedders.0.transformer.": clip_l,
        "conditioner.embedders.1.model.": original_open_clip_names(parts["text_encoder_2"].state_dict()),
    }
    return {f"{prefix}{name}": tensor for prefix, tensors in found.items() for name, tensor in tensors.items()}


def original_unet_names(tensors: dict[str, Tensor], levels: int, layers: int) -> dict[str, Tensor]:
    """A diffusers U-Net in the names of latent diffusion, where blocks are counted from the first to the last layer."""
    return {_original_unet_name(name, levels, layers): tensor for name, tensor in tensors.items()}


def _original_unet_name(name: str, levels: int, layers: int) -> str:
    side, *rest = name.split(".")
    if side == "mid_block":
        return ".".join(["middle_block", str(2 * int(rest[1]) + (rest[0] == "attentions")), *_resnet_names(rest[2:])])
    if side not in ("down_blocks", "up_blocks"):
        return next(f"{new}{name.removeprefix(old)}" for old, new in _UNET_ENDS if name.startswith(old))
    level, kind, layer = int(rest[0]), rest[1], int(rest[2])
    if side == "down_blocks":
        position = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else layer)
        inner = {"resnets": ["0"], "attentions": ["1"], "downsamplers": ["0", "op"]}[kind]
        block = "input_blocks"
    else:
        position = level * (layers + 1) + (layers if kind == "upsamplers" else layer)
        has_attention = level < levels - 1
        inner = {"resnets": ["0"], "attentions": ["1"], "upsamplers": ["2" if has_attention else "1", "conv"]}[kind]
        block = "output_blocks"
    tail = rest[4:] if kind.endswith("samplers") else rest[3:]
    return ".".join([block, str(position), *inner, *_resnet_names(tail)])


def _resnet_names(parts: list[str]) -> list[str]:
    return [*_RESNET.get(parts[0], parts[0]).split("."), *parts[1:]]


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = (
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"), ("conv_in", "input_blocks.0.0"),
    ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"), ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)  # fmt: skip


def original_open_clip_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPTextModelWithProjection in OpenCLIP's names: queries, keys and values in one, the projection transposed."""
    found = {"logit_scale": torch.zeros((), device=tensors["text_projection.weight"].device)}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem == "text_projection":
            found["text_projection"] = tensor.T
        elif stem.endswith("q_proj"):
            stacked = [tensors[f"{stem.removesuffix('q_proj')}{letter}_proj.{kind}"] for letter in "qkv"]
            found[f"{_open_clip_name(stem).removesuffix('.q_proj')}.in_proj_{kind}"] = torch.cat(stacked)
        elif not stem.endswith(("k_proj", "v_proj")):
            found[_open_clip_name(name)] = tensor
    return found


def _open_clip_name(name: str) -> str:
    for old, new in _OPEN_CLIP:
        name = name.replace(old, new)
    return name


_OPEN_CLIP = (
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"), ("text_model.embeddings.", ""),
    ("text_model.final_layer_norm", "ln_final"), ("text_model.encoder.layers", "transformer.resblocks"), ("layer_norm", "ln_"),
    ("self_attn", "attn"), ("fc1", "c_fc"), ("fc2", "c_proj"),
)  # fmt: skip
