"""A golden folder of FluxIR's form with other configurations and other numbers, all of them by originals/fluxir.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from originals.fluxir import Flux
from safetensors.torch import save_file
from torch import Tensor

GUIDED = {
    "patch_size": 1, "in_channels": 12, "num_layers": 3, "num_single_layers": 2, "attention_head_dim": 12, "num_attention_heads": 3,
    "joint_attention_dim": 20, "pooled_projection_dim": 14, "guidance_embeds": True, "axes_dims_rope": [2, 4, 6],
}  # fmt: skip
PLAIN = {
    "patch_size": 1, "in_channels": 8, "num_layers": 1, "num_single_layers": 4, "attention_head_dim": 8, "num_attention_heads": 4,
    "joint_attention_dim": 16, "pooled_projection_dim": 10, "guidance_embeds": False, "axes_dims_rope": [2, 2, 4],
}  # fmt: skip
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2, "block_out_channels": [8, 8],
    "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.7, "shift_factor": -0.2, "use_quant_conv": False,
    "use_post_quant_conv": False,
}  # fmt: skip


@torch.no_grad()
def write_folder(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(8)
    write_step(folder, "guided", GUIDED, batch=3, size=(6, 10), text=7, rank=3, guidance=2.5, steps=3)
    write_step(folder, "plain", PLAIN, batch=1, size=(4, 2), text=4, rank=6, guidance=9.0, steps=5)


@torch.no_grad()
def write_training_folder(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(9)
    sizes: dict[str, Any] = {"text": 5, "rank": 4, "guidance": 3.0, "steps": 2}
    write_step(folder, "guided", GUIDED, batch=2, size=(4, 6), **sizes, training=Training(alpha=0.3))
    write_step(folder, "plain", PLAIN, batch=3, size=(2, 6), **sizes, training=Training(2.0, "before", "clean"))


@dataclass(frozen=True)
class Training:
    """alpha of equation 10, where controls enter, and which latents the pixel loss decodes."""

    alpha: float
    injection: str = "after"
    pixel_form: str = "noisy"


def write_step(
    folder: Path,
    name: str,
    config: dict[str, Any],
    batch: int,
    size: tuple[int, int],
    text: int,
    rank: int,
    guidance: float,
    steps: int,
    training: Training | None = None,
) -> None:
    base = base_weights(config)
    adapter = adapter_weights(config, base, text, rank)
    flux = Flux(base, adapter, config)
    rows, columns = size[0] // 2, size[1] // 2
    latent = (batch, rows * columns, config["in_channels"])
    t = torch.rand(batch)
    inputs = {
        "z_0": torch.randn(latent), "z_1": torch.randn(latent), "z_lq": torch.randn(latent), "t": t,
        "prompt_t5": torch.randn(batch, text, config["joint_attention_dim"]),
        "prompt_clip": torch.randn(batch, config["pooled_projection_dim"]), "txt_ids": torch.zeros(text, 3),
        "img_ids": torch.tensor([[0.0, row, column] for row in range(rows) for column in range(columns)]),
        "sigmas": torch.cat([torch.ones(1), torch.rand(steps - 1).sort(descending=True).values, torch.zeros(1)]),
    }  # fmt: skip
    inputs["z_t"] = (1 - t)[:, None, None] * inputs["z_0"] + t[:, None, None] * inputs["z_1"]
    tensors = {**inputs, **outputs(flux, inputs, torch.full((batch,), guidance))}
    tensors |= {f"w.base.{key}": tensor for key, tensor in base.items()}
    tensors |= {f"w.adapter.{key}": tensor for key, tensor in adapter.items()}
    told: dict[str, Any] = {}
    if training:
        vae = autoencoder(config["in_channels"] // 4)
        told = {**vars(training), "epsilon": 0.1, "vae_config": VAE | {"latent_channels": config["in_channels"] // 4}}
        tensors |= trained(flux, inputs, torch.full((batch,), guidance), vae, size, training)
        tensors |= {f"w.vae.{key}": tensor for key, tensor in vae.state_dict().items() if key.startswith("decoder.")}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    sidecar = {
        "method": "FluxIR", "transformer_config": config, "latent_hw": list(size), "text_tokens": text, "se_rank": rank,
        "guidance": guidance, **told, "file": f"{name}.safetensors", "tolerance": {"limit": 1e-5},
        "tensors": {key: list(tensor.shape) for key, tensor in tensors.items()},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(sidecar))


def outputs(flux: Flux, inputs: dict[str, Tensor], guidance: Tensor) -> dict[str, Tensor]:
    ids = torch.cat([inputs["txt_ids"], inputs["img_ids"]])
    prompt = inputs["prompt_t5"], inputs["prompt_clip"]

    def features(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return flux.features(z, inputs["z_lq"], *prompt, t, guidance, ids)

    z_t, t = inputs["z_t"], inputs["t"]
    f_z, f_p = features(z_t, t)
    controls = flux.controls((f_z, f_p))
    states, sigmas = [inputs["z_1"]], inputs["sigmas"]
    for now, following in pairwise(sigmas):
        z, time = states[-1], now.expand(len(t))
        states.append(z + (following - now) * flux.velocity(z, *prompt, time, guidance, ids, after=flux.controls(features(z, time))))
    return {
        "f_z": f_z, "f_p": f_p, "trajectory": torch.stack(states),
        "v_p": flux.velocity(z_t, *prompt, t, guidance, ids, after=controls),
        "v_p.before": flux.velocity(z_t, *prompt, t, guidance, ids, before=controls),
        "v_p.uncontrolled": flux.velocity(z_t, *prompt, t, guidance, ids),
        **{f"z_c.{index}": image for index, (image, _) in enumerate(controls)},
        **{f"p_c.{index}": text for index, (_, text) in enumerate(controls)},
    }  # fmt: skip


def autoencoder(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config({**VAE, "latent_channels": channels}).eval()


def trained(
    flux: Flux, inputs: dict[str, Tensor], guidance: Tensor, vae: Any, size: tuple[int, int], training: Training
) -> dict[str, Tensor]:
    """Losses, the gradient of their sum by every tensor of the adapter, and some times."""
    own = {name: tensor.clone().requires_grad_() for name, tensor in flux.adapter.items()}
    prompt, t = (inputs["prompt_t5"], inputs["prompt_clip"]), inputs["t"]
    z_0, z_1, z_t, time = inputs["z_0"], inputs["z_1"], inputs["z_t"], t[:, None, None]
    ids = torch.cat([inputs["txt_ids"], inputs["img_ids"]])

    def decoded(tokens: Tensor) -> Tensor:
        rows, columns = size[0] // 2, size[1] // 2
        latent = torch.einsum("bhwcyx->bchywx", tokens.reshape(len(tokens), rows, columns, -1, 2, 2)).reshape(len(tokens), -1, *size)
        return vae.decode(latent / VAE["scaling_factor"] + VAE["shift_factor"]).sample

    with torch.enable_grad():
        steered = Flux(flux.base, own, flux.config)
        controls = steered.controls(steered.features(z_t, inputs["z_lq"], *prompt, t, guidance, ids))
        v_p = steered.velocity(z_t, *prompt, t, guidance, ids, **{training.injection: controls})
        mse = (v_p - (z_1 - z_0)).square().mean()
        pixel = {
            "noisy": (decoded(z_0 + time * v_p) - decoded(z_t)).abs().mean(),
            "clean": (decoded(z_t - time * v_p) - decoded(z_0)).abs().mean(),
        }
        total = mse + training.alpha * pixel[training.pixel_form]
        gradients = torch.autograd.grad(total, list(own.values()), materialize_grads=True)
    u = torch.rand(40) * 1.2 - 0.1
    return {
        "loss.mse": mse, "loss.pixel": pixel["noisy"], "loss.pixel_clean_variant": pixel["clean"], "loss.total": total,
        **{f"grad.{name}": gradient for name, gradient in zip(own, gradients, strict=True)},
        "sampler.u": u, "sampler.t": torch.where(u < 0, 0, torch.where(u > 1, 1, u)),
    }  # fmt: skip


def base_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Drawn, by the names that diffusers gives them."""
    from diffusers import FluxTransformer2DModel

    return {name: drawn(name, tensor) for name, tensor in FluxTransformer2DModel.from_config(config).state_dict().items()}


def adapter_weights(config: dict[str, Any], base: dict[str, Tensor], text: int, rank: int) -> dict[str, Tensor]:
    """Drawn, by the names of the proposed layout: embedders and block shaped as the base's, nothing zero."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    first = "transformer_blocks.0."
    copies = {name: tensor for name, tensor in base.items() if name.startswith(("x_embedder.", "context_embedder.", "time_text_embed."))}
    copies |= {f"block.{name.removeprefix(first)}": tensor for name, tensor in base.items() if name.startswith(first)}
    shapes = {name: tuple(tensor.shape) for name, tensor in copies.items()}
    shapes |= {"theta_p": (1, text, config["joint_attention_dim"]), "theta_y": (1, config["pooled_projection_dim"])}
    shapes |= {"control_in.weight": (width, config["in_channels"]), "control_in.bias": (width,)}
    for layer in (f"se_{kind}.{index}" for kind in "zp" for index in range(config["num_layers"] + config["num_single_layers"])):
        shapes |= {f"{layer}.squeeze.weight": (rank, width), f"{layer}.squeeze.bias": (rank,)}
        shapes |= {f"{layer}.excite.weight": (width, rank), f"{layer}.excite.bias": (width,)}
    return {name: drawn(name, torch.empty(shape)) for name, shape in shapes.items()}


def drawn(name: str, like: Tensor) -> Tensor:
    """Weights that keep the size of what goes through; norms about 1."""
    scale = 0.1 if like.ndim == 1 else like.shape[-1] ** -0.5
    return scale * torch.randn(like.shape) + (1.0 if ".norm_" in name and like.ndim == 1 and "linear" not in name else 0.0)
