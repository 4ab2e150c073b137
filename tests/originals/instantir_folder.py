"""A golden folder of InstantIR's form with another configuration and other numbers, all of them by originals/instantir.py.

Three levels with two blocks each, two pictures of different size ids, latents that are not square, rank 3; loops of 2 to 5 steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from originals import instantir_records as records
from originals.instantir import Weights, lora_targets, processor_order
from originals.instantir_loops import Networks
from safetensors.torch import save_file
from torch import Tensor

RESAMPLER = {"dim": 24, "depth": 3, "dim_head": 8, "heads": 5, "num_queries": 5, "ff_mult": 2, "embedding_dim": 18, "output_dim": 20}
CONFIG: dict[str, Any] = {
    "unet": {
        "sample_size": 12, "in_channels": 4, "out_channels": 4, "block_out_channels": [16, 32, 48], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 1, 2], "attention_head_dim": [2, 4, 3], "cross_attention_dim": 20,
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 6,
        "projection_class_embeddings_input_dim": 50, "norm_num_groups": 8,
    },
    "resampler": RESAMPLER,
    "time_embed_dim": 64,
    "lora": {
        "rank": 3, "alpha": 1, "scale": 1 / 3,
        "target_modules": [
            "to_q", "to_kv", "0.to_out", "attn1.to_k", "attn1.to_v", "to_k_ip", "to_v_ip", "ln_k_ip.linear", "ln_v_ip.linear", "to_out.0",
            "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv",
            "upsamplers.0.conv", "time_emb_proj",
        ],
    },
    "scheduler": {
        "num_train_timesteps": 1000, "beta_start": 0.0009, "beta_end": 0.011, "beta_schedule": "scaled_linear", "clip_sample": False,
        "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading",
    },
    "ddpm_variance": "fixed_small",
    "lcm": {"sigma_data": 0.5, "timestep_scaling": 10.0, "clip_sample": False},
    "batch": 2,
    "latent_hw": [12, 8],
    "text_len": 6,
    "pooled_dim": 14,
}  # fmt: skip
BATCH, LATENT, IMAGE, TEXT, POOLED = 2, (2, 4, 12, 8), (2, 11, 18), (2, 6, 20), (2, 14)
WEIGHTS = ("unet", "dcp", "previewer_lora", "aggregator")
MODULE, INDEX = "up_blocks.1.attentions.2.transformer_blocks.0.attn2", 29
UNET_TIMESTEP = 333
ARGUMENTS = {
    "num_inference_steps": 5, "guidance_scale": 4.5, "scheduler": "DDPM fixed_small", "preview_start": 0.0, "preview_end": 1.0,
    "control_guidance_start": 0.0, "control_guidance_end": 1.0, "controlnet_conditioning_scale": 1.0, "init_latents_with_lq": True,
    "adastep_restore": False,
}  # fmt: skip
ADARES = {"adastep_restore": True}
RELEASED = {
    "default": {"num_inference_steps": 2},
    "ddim": {"scheduler": "DDIM eta=0", "num_inference_steps": 3, "controlnet_conditioning_scale": 0.6},
    "windows": {"preview_start": 0.2, "preview_end": 0.6, "control_guidance_end": 0.8},
    "late_control": {"control_guidance_start": 0.5, "preview_end": 0.75, "num_inference_steps": 4},
    "pure_noise": {"init_latents_with_lq": False, "num_inference_steps": 2},
    "nocfg": {"guidance_scale": 1.0, "controlnet_conditioning_scale": 1.4, "num_inference_steps": 2},
    "code_adares": {**ADARES, "guidance_scale": 7.0, "num_inference_steps": 4},
    "code_adares_strength": {**ADARES, "controlnet_conditioning_scale": 0.35, "scheduler": "DDIM eta=0", "num_inference_steps": 3},
}
DDIM_STEP = "exact DDIM step: z_prev = (b_prev/b) z + (a_prev - b_prev a/b) z_bar"
PRINTED_STEP = "line 8 exactly as printed"
PAPER = {
    "literal": {"update": PRINTED_STEP, "delta_clamped_to_0_1": False, "guidance_scale": None},
    "ddim": {"update": DDIM_STEP, "delta_clamped_to_0_1": False, "guidance_scale": 6.0},
    "ddim_cfg_clamped": {"update": DDIM_STEP, "delta_clamped_to_0_1": True, "guidance_scale": 6.0},
}


@torch.inference_mode()
def write_folder(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(9)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weights = random_weights()
    for name, tensors in weights.items():
        write(folder, f"weights_{name}", tensors, {}, shards=2 if name == "aggregator" else 1)
    networks = build_networks(weights)
    write_parts(folder, networks)
    inputs = random_inputs()
    write(folder, "f_inputs", inputs, {})
    for name, changed in RELEASED.items():
        write_loop(folder, f"f_loop_{name}", networks, inputs, {"arguments": {**ARGUMENTS, **changed}})
    for name, variant in PAPER.items():
        write_loop(folder, f"g_adares_{name}", networks, inputs, {"variant": variant}, steps=4)


def build_networks(weights: dict[str, Weights]) -> Networks:
    unet, dcp, lora, aggregator = (exact(weights[name]) for name in WEIGHTS)
    return Networks.build(CONFIG, {**unet, **dcp}, lora, aggregator)


def exact(tensors: Weights) -> Weights:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


# --- weights by their published names


def random_weights() -> dict[str, Weights]:
    unet, dcp = random_unet(), random_dcp()
    return dict(zip(WEIGHTS, (unet, dcp, random_lora({**unet, **dcp}), random_aggregator()), strict=True))


def random_unet() -> Weights:
    """Livelier than a new one, so that what it is told shows."""
    state = stock_state().items()
    return {name: 1.4 * value if value.ndim > 1 else value + 0.1 * torch.randn_like(value) for name, value in state}


def stock_state() -> Weights:
    return dict(UNet2DConditionModel.from_config(CONFIG["unet"]).state_dict())


def layer(name: str, *shape: int, bias: bool = True, gain: float = 1.0) -> Weights:
    weight = gain * torch.randn(shape) / torch.Size(shape[1:]).numel() ** 0.5
    return {f"{name}.weight": weight, **({f"{name}.bias": 0.1 * torch.randn(shape[0])} if bias else {})}


def norm(name: str, width: int) -> Weights:
    return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}


def random_dcp() -> Weights:
    dim, inner, wide = RESAMPLER["dim"], RESAMPLER["heads"] * RESAMPLER["dim_head"], RESAMPLER["dim"] * RESAMPLER["ff_mult"]
    found = {"latents": torch.randn(1, RESAMPLER["num_queries"], dim), **layer("proj_in", dim, RESAMPLER["embedding_dim"])}
    found |= {**layer("proj_out", RESAMPLER["output_dim"], dim), **norm("norm_out", RESAMPLER["output_dim"])}
    for index in range(RESAMPLER["depth"]):
        attention, forward = f"layers.{index}.0", f"layers.{index}.1"
        found |= {**norm(f"{attention}.norm1", dim), **norm(f"{attention}.norm2", dim), **norm(f"{forward}.0", dim)}
        found |= {**layer(f"{attention}.to_q", inner, dim, bias=False), **layer(f"{attention}.to_kv", 2 * inner, dim, bias=False)}
        found |= layer(f"{attention}.to_out", dim, inner, bias=False)
        found |= {**layer(f"{forward}.1", wide, dim, bias=False), **layer(f"{forward}.3", dim, wide, bias=False)}
    found = {f"image_proj.{name}": value for name, value in found.items()}
    state = stock_state()
    for index, name in enumerate(processor_order(CONFIG["unet"])):
        if ".attn2." in name:
            width, tokens = state[name.replace("processor", "to_k.weight")].shape
            for kind in "kv":
                found |= layer(f"ip_adapter.{index}.to_{kind}_ip", width, tokens, bias=False)
                found |= layer(f"ip_adapter.{index}.ln_{kind}_ip.linear", 2 * width, CONFIG["time_embed_dim"], gain=0.5)
    return found


def random_lora(weights: Weights) -> Weights:
    rank, found = CONFIG["lora"]["rank"], {}
    suffixes = CONFIG["lora"]["target_modules"]
    for name, module in lora_targets(list(weights), processor_order(CONFIG["unet"]), suffixes).items():
        out, *into = weights[name].shape
        # The saving code renames those of a stock attention, wherever they are.
        renamed = module.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))
        first, second = ("lora.down", "lora.up") if renamed else ("lora_A", "lora_B")
        found |= layer(f"{module}.{first}", rank, *into, bias=False)
        found |= layer(f"{module}.{second}", out, rank, *(1 for _ in into[1:]), bias=False, gain=0.5)
    return found


def random_aggregator() -> Weights:
    outside = ("up_blocks.", "conv_norm_out.", "conv_out.")
    found = {name: value for name, value in random_unet().items() if not name.startswith(outside)}
    found = {name: value for name, value in found.items() if ".attn2." not in name and (".norm2." not in name or ".resnets." in name)}
    channels, blocks = CONFIG["unet"]["block_out_channels"], CONFIG["unet"]["layers_per_block"]
    found |= layer("ref_conv_in", channels[0], 4, 3, 3)
    outputs = [width for index, width in enumerate(channels) for _ in range(blocks + (index < len(channels) - 1))]
    named = {f"controlnet_down_blocks.{index}": width for index, width in enumerate([channels[0], *outputs])}
    for name, width in {**named, "controlnet_mid_block": channels[-1]}.items():
        found |= {**layer(f"{name}.0.mlp_shared.0", 128, width, 3, 3), **layer(f"{name}.1", width, width, 1, 1, gain=0.2)}
        found |= {**layer(f"{name}.0.mul", width, 128, 3, 3), **layer(f"{name}.0.add", width, 128, 3, 3)}
    return found


# --- the sidecars


def random_inputs() -> Weights:
    """Prompts that say much of the first picture and next to nothing of the second: their delta differ."""
    negative, negative_pooled, uncond = torch.randn(TEXT), torch.randn(POOLED), torch.randn(IMAGE)
    said = torch.tensor([4.0, 0.02])[:, None, None]
    return {
        "lq_latent": torch.randn(LATENT),
        "image_tokens": uncond + said * torch.randn(IMAGE),
        "uncond_image_tokens": uncond,
        "prompt_embeds": negative + said * torch.randn(TEXT),
        "negative_prompt_embeds": negative,
        "pooled": negative_pooled + said[..., 0] * torch.randn(POOLED),
        "negative_pooled": negative_pooled,
        "time_ids": size_ids(),
    }


def size_ids() -> Tensor:
    return torch.tensor([[96.0, 64, 0, 0, 96, 64], [120, 80, 8, 4, 96, 64]])


def write_parts(folder: Path, networks: Networks) -> None:
    conditions = {"pooled_text": torch.randn(POOLED), "time_ids": size_ids()}
    given = {"tokens": torch.randn(IMAGE), "uncond_tokens": torch.randn(IMAGE), **conditions}
    words = {"processor": f"{MODULE}.processor", "processor_index": INDEX}
    record = records.resampler(networks, words, exact(given), [1, 400, 880])
    write(folder, "a_dcp", record, given, 5e-6, words)
    width = CONFIG["unet"]["block_out_channels"][1]
    given = {"hidden_states": torch.randn(BATCH, 24, width), "text_context": torch.randn(TEXT), "ip_tokens": torch.randn(BATCH, 5, 20)}
    given["temb"] = torch.randn(BATCH, CONFIG["time_embed_dim"])
    words = {"module": MODULE, "processor_index": INDEX}
    write(folder, "b_decoupled_attn", records.attention(networks, words, exact(given)), given, 5e-6, words)
    given = {"lq_latent": torch.randn(LATENT), "preview_latent": torch.randn(LATENT), "text_context": torch.randn(TEXT), **conditions}
    write(folder, "c_aggregator", records.aggregator(networks, exact(given), ["t1", "t640", "width_t77"]), given, 1e-5)
    residuals = records.residuals_of(networks, exact(given), UNET_TIMESTEP)
    given = {"sample": torch.randn(LATENT), "image_tokens": torch.randn(IMAGE), "text_context": torch.randn(TEXT), **conditions}
    given |= {name: residual.float() for name, residual in records.named_residuals(residuals, "res_").items()}
    words = {"timestep": UNET_TIMESTEP}
    write(folder, "d_unet", records.unet(networks, words, exact(given)), given, 1e-5, words)
    given = {"sample": torch.randn(LATENT), "model_output": torch.randn(LATENT)}
    given |= {"timesteps": torch.tensor([2, 77, 400, 912]), "batch_timesteps": torch.tensor([640, 13])}
    write(folder, "e_lcm", records.single_steps(networks, exact(given)), given, 2e-6)


def write_loop(folder: Path, name: str, networks: Networks, inputs: Weights, words: dict[str, Any], steps: int = 0) -> None:
    draws: list[Tensor] = []

    def noise() -> Tensor:
        draws.append(torch.randn(LATENT))
        return draws[-1].double()

    record = records.loop(networks, words, exact(inputs), noise, steps)
    given = {key for key in record if key in ("init_noise", "z_T") or key.endswith("_noise")}
    if "arguments" in words:
        previews, references = (sum(key.endswith(kind) for key in record) for kind in ("_preview", "_reference"))
        words = {**words, "calls": {"unet": previews + words["arguments"]["num_inference_steps"], "agg": references, "lcm": previews}}
    write(folder, name, record, given, 5e-5, words)


def write(
    folder: Path, name: str, tensors: Weights, given: Any, limit: float | None = None, words: dict[str, Any] | None = None, shards: int = 1
) -> None:
    """The tensors in `shards` files, and their sidecar: what is in `given` is meant as an input."""
    stored = {key: value.float().contiguous() if value.is_floating_point() else value for key, value in tensors.items()}
    files = [f"{name}.safetensors"] if shards == 1 else [f"{name}-{index + 1:02}-of-{shards:02}.safetensors" for index in range(shards)]
    for index, file in enumerate(files):
        save_file({key: stored[key] for key in list(stored)[index::shards]}, folder / file)
    meanings = {key: "input" if limit is None or key in given else "output" for key in stored}
    listed = {
        key: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "meaning": meanings[key]}
        for key, value in stored.items()
    }
    tolerance = {} if limit is None else {"tolerance": {"rule": "max|x-ref| <= limit * max|ref|", "limit": limit}}
    (folder / f"{name}.json").write_text(json.dumps({**(words or {}), **tolerance, "files": files, "tensors": listed}))
