"""A golden folder of InstaRevive's form with other configurations and other numbers, all of them by originals/instarevive.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from originals.instarevive import adain, one_step, swinir, tile_coordinates, wavelet
from originals.instarevive_control import control
from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER = {
    "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 6, "out_channels": 12, "num_layers": 3, "norm_num_groups": 6,
    "cross_attention_dim": 24, "attention_bias": True, "sample_size": 12, "patch_size": 2, "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "norm_eps": 1e-6,
    "caption_channels": 20,
}  # fmt: skip
TIMESTEP = 611
SWINIR = {
    "img_size": 9, "patch_size": 1, "in_chans": 3, "embed_dim": 12, "depths": [3, 2], "num_heads": [3, 2], "window_size": 3,
    "mlp_ratio": 1.5, "sf": 4, "img_range": 2.0, "upsampler": "nearest+conv", "resi_connection": "1conv", "unshuffle": True,
    "unshuffle_scale": 4,
}  # fmt: skip
# The training grid is a single window here, so nothing shifts, whatever the size of the picture.
SINGLE_WINDOW = {
    **SWINIR,
    "img_size": 3,
    "window_size": 8,
    "depths": [2],
    "num_heads": [4],
    "sf": 2,
    "unshuffle_scale": 2,
    "img_range": 1.0,
}


@torch.inference_mode()
def write_folder(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(5)
    write_step(folder)
    write_swinir(folder, "restorer", SWINIR, (24, 48))
    write_swinir(folder, "single", SINGLE_WINDOW, (12, 18))
    write_finish(folder)
    write(folder, "far", *control("scaled_linear", steps=600, kappa=0.7, guidance=5.5, kl_weight=0.3, shape=(3, 6, 6, 10), row=0))
    write(folder, "near", *control("linear", steps=1000, kappa=2.0, guidance=1.5, kl_weight=2.0, shape=(1, 4, 4, 8), row=3))


def write_step(folder: Path) -> None:
    from diffusers import DDPMScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel.from_config(TRANSFORMER).eval()
    alphas = DDPMScheduler(1000, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear").alphas_cumprod
    tensors = {
        "alphas_cumprod": alphas, "prompt_embeds": torch.randn(1, 7, 20), "prompt_mask": (torch.arange(7) < 4)[None].float(),
        "wide.latent": torch.randn(1, 6, 6, 10), "tall.latent": torch.randn(1, 6, 14, 4),
    }  # fmt: skip
    for case in ("wide", "tall"):
        for name, mask in (("mask3d", tensors["prompt_mask"][:, None]), ("mask2d", tensors["prompt_mask"])):
            eps, clean = one_step(transformer, tensors[f"{case}.latent"], tensors["prompt_embeds"], mask, TIMESTEP, alphas)
            tensors |= {f"{case}.eps.{name}": eps, f"{case}.x0.{name}": clean}
    tensors |= {f"w.transformer.{name}": tensor for name, tensor in transformer.state_dict().items()}
    write(folder, "step", tensors, {"method": "InstaRevive", "transformer_config": TRANSFORMER, "timestep": TIMESTEP})


def write_swinir(folder: Path, name: str, config: dict[str, Any], size: tuple[int, int]) -> None:
    weights = swinir_weights(config)
    picture = torch.rand(1, 3, *size)
    tensors = {"input": picture, "output": swinir(weights, config, picture)}
    tensors |= {f"w.swinir.{key}": tensor for key, tensor in weights.items()}
    write(folder, name, tensors, {"method": "InstaRevive pre-restorer", "swinir_config": config})


def swinir_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random tensors of the published names, without those that a loader computes."""
    dim, hidden = config["embed_dim"], int(config["embed_dim"] * config["mlp_ratio"])
    window = min(config["window_size"], config["img_size"])
    shapes: dict[str, tuple[int, ...]] = {
        "conv_first.1": (dim, 3 * config["unshuffle_scale"] ** 2, 3, 3), "patch_embed.norm": (dim,), "norm": (dim,),
        "conv_after_body": (dim, dim, 3, 3), "conv_before_upsample.0": (64, dim, 3, 3), "conv_hr": (64, 64, 3, 3),
        "conv_last": (3, 64, 3, 3),
    }  # fmt: skip
    shapes |= {f"conv_up{step}": (64, 64, 3, 3) for step in range(1, config["sf"].bit_length())}
    tables = {}
    for group, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
        shapes[f"layers.{group}.conv"] = (dim, dim, 3, 3)
        for block in (f"layers.{group}.residual_group.blocks.{index}" for index in range(depth)):
            tables[f"{block}.attn.relative_position_bias_table"] = torch.randn((2 * window - 1) ** 2, heads)
            shapes |= {f"{block}.norm1": (dim,), f"{block}.norm2": (dim,), f"{block}.attn.qkv": (3 * dim, dim)}
            shapes |= {f"{block}.attn.proj": (dim, dim), f"{block}.mlp.fc1": (hidden, dim), f"{block}.mlp.fc2": (dim, hidden)}
    scales = {name: 1 / max(1, torch.Size(shape[1:]).numel()) ** 0.5 for name, shape in shapes.items()}
    weights = {f"{name}.weight": torch.randn(shape) * scales[name] for name, shape in shapes.items()}
    return {**weights, **{f"{name}.bias": 0.1 * torch.randn(shape[0]) for name, shape in shapes.items()}, **tables}


def write_finish(folder: Path) -> None:
    content, style = torch.rand(1, 3, 40, 70), torch.rand(1, 3, 40, 70)
    sizes = [(32, 32, 32, 20), (50, 75, 32, 20), (33, 52, 32, 20), (90, 40, 40, 30)]
    tiles = [
        {"h": height, "w": width, "tile": tile, "stride": stride, "coords_hi_hend_wi_wend": tile_coordinates(height, width, tile, stride)}
        for height, width, tile, stride in sizes
    ]
    tensors = {"content": content, "style": style, "wavelet": wavelet(content, style), "adain": adain(content, style)}
    write(folder, "finish", tensors, {"method": "InstaRevive post-processing", "tiles": tiles})


def write(folder: Path, name: str, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
    sidecar = {**content, "file": f"{name}.safetensors", "tolerance": {"limit": 1e-5}, "tensors": shapes}
    (folder / f"{name}.json").write_text(json.dumps(sidecar))
