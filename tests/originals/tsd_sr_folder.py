"""A golden folder of TSD-SR's form with another configuration and other numbers, all of them by originals/tsd_sr.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from originals.tsd_sr import MANIFEST, Original, add_adapter, random_networks
from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER = {
    "sample_size": 12, "patch_size": 2, "in_channels": 8, "num_layers": 3, "attention_head_dim": 8, "num_attention_heads": 3,
    "joint_attention_dim": 20, "caption_projection_dim": 24, "pooled_projection_dim": 12, "out_channels": 8, "pos_embed_max_size": 20,
}  # fmt: skip
VAE = {
    "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 16, 8, 8], "layers_per_block": 2, "latent_channels": 8, "norm_num_groups": 4, "scaling_factor": 0.9,
    "shift_factor": 0.3, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip


@torch.no_grad()
def write_other_folder(folder: Path) -> None:
    """Weights, adapters of rank 3 with scale 2, an untiled and a tiled path, and a schedule of 250 steps with shift 2."""
    torch.manual_seed(3)
    lora = json.loads(MANIFEST.read_text())["lora"]
    adapters = {part: {"r": 3, "alpha": 6, "targets": lora[f"student_{part}"]["target_modules"]} for part in ("transformer", "vae")}
    transformer, vae = random_networks(TRANSFORMER, VAE)
    weights = {
        "transformer": tensors_of(transformer, ""),
        **{f"vae_{part}": tensors_of(vae, f"{part}.") for part in ("encoder", "decoder")},
    }
    for part, tensors in weights.items():
        save_file(tensors, folder / f"weights_{part}.safetensors")
    for part, network in (("transformer", transformer), ("vae", vae)):
        chosen = adapters[part]
        save_file(add_adapter(network, chosen["targets"], chosen["r"], chosen["alpha"]), folder / f"lora_{part}.safetensors")
    original = Original(transformer, vae, torch.randn(1, 5, 20), torch.randn(1, 12), upscale=2, process_size=48)
    save_file({"prompt_embeds": original.prompt, "pool_embeds": original.pooled}, folder / "prompts.safetensors")
    write_path(folder, "first", original, adapters, (33, 25))
    write_path(folder, "second", replace(original, upscale=4, process_size=64, latent_tile=8, latent_overlap=2), adapters, (40, 32))
    write_schedule(folder)


def tensors_of(network: Any, prefix: str) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if name.startswith(prefix)}


def write_path(folder: Path, name: str, original: Original, adapters: dict[str, Any], size: tuple[int, int]) -> None:
    source = (torch.rand(*size, 3) * 256).to(torch.uint8)
    height, width, _ = original.working_size(*size)
    noise = torch.randn(1, VAE["latent_channels"], height // 8, width // 8)  # type: ignore[call-overload]
    tensors = {"lq": source, "vae_noise": noise, **original.restore(source.numpy(), noise)}
    config: dict[str, Any] = {"upscale": original.upscale, "process_size": original.process_size}
    config |= {"latent_tiled_size": original.latent_tile, "latent_tiled_overlap": original.latent_overlap}
    if "tile_x" in tensors:
        narrow = torch.randn(1, 8, 6, 30)
        velocity, tiling = original.tiled_velocity(narrow, 8, 2)
        tensors |= {"narrow_input": narrow, "narrow_pred": velocity, **{f"narrow_{key}": value for key, value in tiling.items()}}
        config["narrow"] = {"latent_tiled_size": 8, "latent_tiled_overlap": 2}
    write(folder, name, tensors, {"transformer": TRANSFORMER, "vae": VAE, "lora": adapters, **config}, 2e-4)


def write_schedule(folder: Path) -> None:
    even = 1 - torch.arange(250) / 250
    sigmas = 2 * even / (1 + even)
    write(folder, "third", {"timesteps": 250 * sigmas, "sigmas": sigmas}, {"scheduler": {"num_train_timesteps": 250, "shift": 2.0}}, 1e-6)


def write(folder: Path, name: str, tensors: dict[str, Tensor], config: dict[str, Any], limit: float) -> None:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    tolerance = {"limit": limit, "uint8_images": "differ by at most 2 grey levels, on at most 0.5% of the values"}
    entries = {key: {"shape": list(value.shape), "meaning": ""} for key, value in tensors.items()}
    sidecar = {"file": f"{name}.safetensors", "config": config, "tolerance": tolerance, "tensors": entries}
    (folder / f"{name}.json").write_text(json.dumps(sidecar))
