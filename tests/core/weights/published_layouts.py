"""Tiny priors as they are published: diffusers folders, and single files in the original names, which nothing but tests writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

SD3_CONFIG: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
    "joint_attention_dim": 32, "caption_projection_dim": 16, "pooled_projection_dim": 24, "out_channels": 16, "pos_embed_max_size": 8,
}  # fmt: skip
PIXART_CONFIG: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2, "norm_num_groups": 4,
    "cross_attention_dim": 16, "sample_size": 64, "caption_channels": 12, "norm_type": "ada_norm_single", "patch_size": 2,
    "use_additional_conditions": False,
}  # fmt: skip
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 8, "in_channels": 16, "out_channels": 16, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "cross_attention_dim": 12, "attention_head_dim": [2, 4], "use_linear_projection": True,
}  # fmt: skip


def vae_config(latent_channels: int, **changes: Any) -> dict[str, Any]:
    """An AutoencoderKL of two levels with attention in the middle."""
    return {
        "in_channels": 3, "out_channels": 3, "latent_channels": latent_channels, "block_out_channels": [8, 16], "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2, "layers_per_block": 1,
        "scaling_factor": 0.5, "shift_factor": 0.25, **changes,
    }  # fmt: skip


def random_network(class_name: str, config: dict[str, Any]) -> Any:
    """A diffusers network whose every tensor is drawn, norms and buffers too."""
    import diffusers

    network = getattr(diffusers, class_name).from_config(config)
    generator = torch.Generator().manual_seed(0)
    network.load_state_dict({name: torch.randn(tensor.shape, generator=generator) for name, tensor in network.state_dict().items()})
    return network.eval()


def write_folder(folder: Path, parts: dict[str, nn.Module], **changes: Any) -> Path:
    """A diffusers folder of these networks. changes: entries of the vae's config.json; None leaves one out."""
    for name, network in parts.items():
        network.save_pretrained(folder / name)  # type: ignore[operator]
    if changes:
        path = folder / "vae" / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


def write_single_file(path: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kintsugi": json.dumps(config)} if config else None
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def original_sd3_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers SD3 transformer in the names of the release: queries, keys and values in one, shift before scale at the end."""
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    swapped = {"norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear"}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if module in swapped:
            tensor = torch.cat(list(reversed(tensor.chunk(2))))
        stacked = next((new for old, new in _STACKED.items() if f".attn.{old}" in name), None)
        if stacked is None:
            found[_renamed(name, _SD3)] = tensor
        elif ".to_q." in name or ".add_q_proj." in name:
            others = [name.replace("_q.", f"_{letter}.").replace("_q_", f"_{letter}_") for letter in "kv"]
            block = f"joint_blocks.{name.split('.')[1]}.{stacked}.attn.qkv.{kind}"
            found[block] = torch.cat([tensor, *(tensors[other] for other in others)])
    return found


_STACKED = {
    "to_q": "x_block", "to_k": "x_block", "to_v": "x_block",
    "add_q": "context_block", "add_k": "context_block", "add_v": "context_block",
}  # fmt: skip
_SD3 = (
    ("pos_embed.pos_embed", "pos_embed"), ("pos_embed.proj", "x_embedder.proj"), ("time_text_embed.timestep_embedder", "t_embedder"),
    ("time_text_embed.text_embedder", "y_embedder"), ("embedder.linear_1", "embedder.mlp.0"), ("embedder.linear_2", "embedder.mlp.2"),
    ("proj_out", "final_layer.linear"), ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    ("norm1.linear", "x_block.adaLN_modulation.1"), ("norm1_context.linear", "context_block.adaLN_modulation.1"),
    ("attn.to_out.0", "x_block.attn.proj"), ("attn.to_add_out", "context_block.attn.proj"), ("ff.net.0.proj", "x_block.mlp.fc1"),
    ("ff.net.2", "x_block.mlp.fc2"), ("ff_context.net.0.proj", "context_block.mlp.fc1"), ("ff_context.net.2", "context_block.mlp.fc2"),
    ("transformer_blocks.", "joint_blocks."),
)  # fmt: skip


def original_vae_names(tensors: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """A diffusers VAE in the names of latent diffusion: decoder levels counted from the picture, attention as 1 x 1 convolutions."""
    found = {}
    for name, tensor in tensors.items():
        if ".up_blocks." in name:
            level = name.split(".")[2]
            name = name.replace(f"up_blocks.{level}", f"up_blocks.{levels - 1 - int(level)}")
        attention = ".attentions." in name and name.endswith("weight") and "group_norm" not in name
        found[_renamed(name, _VAE)] = tensor[:, :, None, None] if attention else tensor
    return found


_VAE = (
    ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
    ("down_blocks", "down"), ("up_blocks", "up"), ("resnets", "block"), ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"),
    ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
    ("to_v", "v"), ("to_out.0", "proj_out"),
)  # fmt: skip


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        name = name.replace(old, new)
    return name
