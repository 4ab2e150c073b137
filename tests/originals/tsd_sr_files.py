"""TSD-SR's files as they are published, at tiny widths: a diffusers folder of SD3, two adapters of rank 64, two prompt files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from originals.tsd_sr import MANIFEST, Original, add_adapter, random_networks
from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "num_layers": 24, "attention_head_dim": 4, "num_attention_heads": 2,
    "joint_attention_dim": 12, "caption_projection_dim": 8, "pooled_projection_dim": 10, "out_channels": 16, "pos_embed_max_size": 12,
}  # fmt: skip
VAE = {
    "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 8, 4, 4], "layers_per_block": 2, "latent_channels": 16, "norm_num_groups": 2, "scaling_factor": 1.5305,
    "shift_factor": 0.0609, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
RANK = 64


@dataclass(frozen=True)
class Release:
    """Where the student lies, what the original makes of the same files, and their tensors."""

    student: Path
    original: Original
    transformer_adapter: dict[str, Tensor]
    vae_adapter: dict[str, Tensor]


@torch.no_grad()
def write_release(models: Path, layers: int = 24, rank: int = RANK) -> Release:
    """The files in their usual folders below `models`."""
    torch.manual_seed(1)
    student, base = models / "kintsugi" / "tsd-sr" / "transformer.safetensors", models / "diffusers" / "stable-diffusion-3-medium-diffusers"
    student.parent.mkdir(parents=True)
    transformer, vae = random_networks({**TRANSFORMER, "num_layers": layers}, VAE)
    transformer.save_pretrained(base / "transformer")
    vae.save_pretrained(base / "vae")
    lora = json.loads(MANIFEST.read_text())["lora"]
    adapters = [
        add_adapter(network, lora[f"student_{part}"]["target_modules"], rank, rank)
        for part, network in (("transformer", transformer), ("vae", vae))
    ]
    original = Original(transformer, vae, torch.randn(1, 7, 12), torch.randn(1, 10))
    save_file(adapters[0], student)
    save_file(adapters[1], student.with_name("vae.safetensors"))
    save_file({"prompt_embeds": original.prompt}, student.with_name("prompt_embeds.safetensors"))
    save_file({"pool_embeds": original.pooled}, student.with_name("pool_embeds.safetensors"))
    return Release(student, original, *adapters)


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with tensors replaced, added, or left out where the change is None."""
    from safetensors.torch import load_file

    tensors = {**load_file(path), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    return path
