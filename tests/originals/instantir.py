"""InstantIR's networks written once more from its specification: stock diffusers parts in float64, two copies of the U-Net.

Nothing of ours is used here, so that what agrees with it agrees with the original. Weights are dicts by published name:
`denoiser` holds the plain U-Net's names together with `image_proj.*` and `ip_adapter.<index>.*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
RESAMPLER = "unet.encoder_hid_proj.image_projection_layers.0."


def stock_unet(config: dict[str, Any], weights: Weights) -> tuple[Any, list[str]]:
    """A stock U-Net in float64 with those of the weights that it knows, and the names of its own that were not among them."""
    unet = UNet2DConditionModel.from_config(config).double().eval()
    own = unet.state_dict().keys()
    known = {name: value for name, value in weights.items() if name in own}
    return unet, unet.load_state_dict(known, strict=False).missing_keys


def processor_order(config: dict[str, Any]) -> list[str]:
    with torch.device("meta"):
        return list(UNet2DConditionModel.from_config(config).attn_processors)


def embedding(unet: Any, timestep: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
    """e [B, T] of the timesteps [B], the pooled text [B, P] and the size ids [B, 6]. Section 3.3."""
    sizes = unet.add_time_proj(ids.flatten()).reshape(len(ids), -1)
    return unet.time_embedding(unet.time_proj(timestep).double()) + unet.add_embedding(torch.cat([pooled, sizes], 1).double())


# --- the Resampler, section 3.2


def part(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Plain attention of [B, N, C] to [B, M, C], the heads side by side in C."""
    query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    shares = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)
    return (shares @ value).transpose(1, 2).flatten(2)


def resampler_stages(weights: Weights, heads: int, tokens: Tensor) -> Weights:
    """Every stage of the Resampler by its golden name; weights are those below `image_proj.`, tokens [B, N, D]."""
    seen = linear(weights, "proj_in", tokens)
    stages = {"after_proj_in": seen}
    latents = weights["latents"].repeat(len(tokens), 1, 1)
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for index in range(layers):
        own, images = layer_norm(weights, f"layers.{index}.0.norm2", latents), layer_norm(weights, f"layers.{index}.0.norm1", seen)
        key, value = linear(weights, f"layers.{index}.0.to_kv", torch.cat([images, own], 1)).chunk(2, dim=-1)
        mixed = attend(linear(weights, f"layers.{index}.0.to_q", own), key, value, heads)
        latents = latents + linear(weights, f"layers.{index}.0.to_out", mixed)
        stages[f"layer{index}_after_attn"] = latents
        hidden = linear(weights, f"layers.{index}.1.1", layer_norm(weights, f"layers.{index}.1.0", latents))
        latents = latents + linear(weights, f"layers.{index}.1.3", hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)
        stages[f"layer{index}_after_ff"] = latents
    return {**stages, "output": layer_norm(weights, "norm_out", linear(weights, "proj_out", latents))}


# --- the decoupled attention, section 3.3


def adaptive_norm(weights: Weights, name: str, x: Tensor, e: Tensor) -> Tensor:
    shift, scale = linear(weights, f"{name}.linear", e * torch.sigmoid(e))[:, None].chunk(2, dim=-1)
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * (1 + scale) + shift


def image_key_value(weights: Weights, tokens: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """K' and V' [B, N, C] of one layer's weights, for Resampler tokens [B, N, D]."""
    key, value = (adaptive_norm(weights, f"ln_{kind}_ip", linear(weights, f"to_{kind}_ip", tokens), e) for kind in "kv")
    return key, value


@dataclass
class Scene:
    """What all image attentions of a U-Net see besides its text: Resampler tokens (None hides the image) and e."""

    tokens: Tensor | None = None
    e: Tensor | None = None
    weight: float = 1.0


class ImageAttention:
    """A processor for attn2."""

    def __init__(self, weights: Weights, scene: Scene) -> None:
        self.weights, self.scene = weights, scene

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None) -> Tensor:
        query = attn.to_q(hidden_states)
        mixed = attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        if self.scene.tokens is not None:
            key, value = image_key_value(self.weights, self.scene.tokens, self.scene.e)
            mixed = mixed + self.scene.weight * attend(query, key, value, attn.heads)
        return attn.to_out[0](mixed)


@dataclass(frozen=True)
class Prompt:
    """One row per sample of a call: text [R, L, D], pooled [R, P], size ids [R, 6], image tokens [R, N, D] (None: no image)."""

    text: Tensor
    pooled: Tensor
    ids: Tensor
    image: Tensor | None


class Denoiser:
    """The U-Net with the DCP; another one, with other weights, is the Previewer."""

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.unet, missing = stock_unet(config["unet"], weights)
        assert not missing
        self.weights, self.heads, self.resampler = weights, config["resampler"]["heads"], part(weights, "image_proj.")
        self.scene = Scene()
        order = list(self.unet.attn_processors)
        self.unet.set_attn_processor({name: self._processor(weights, index, name) for index, name in enumerate(order)})

    def _processor(self, weights: Weights, index: int, name: str) -> Any:
        return ImageAttention(part(weights, f"ip_adapter.{index}."), self.scene) if ".attn2." in name else AttnProcessor()

    def resample(self, tokens: Tensor) -> Tensor:
        return resampler_stages(self.resampler, self.heads, tokens)["output"]

    def __call__(self, z: Tensor, timestep: int, prompt: Prompt, residuals: list[Tensor] | None = None) -> Tensor:
        """eps [R, C, h, w]; residuals: those of the skips in order, then that of the middle."""
        times = torch.full((len(z),), timestep)
        self.scene.tokens = None if prompt.image is None else self.resample(prompt.image)
        self.scene.e = embedding(self.unet, times, prompt.pooled, prompt.ids)
        added = {"text_embeds": prompt.pooled, "time_ids": prompt.ids}
        extra = {"down_block_additional_residuals": residuals[:-1], "mid_block_additional_residual": residuals[-1]} if residuals else {}
        return self.unet(z, times, prompt.text, added_cond_kwargs=added, **extra).sample


# --- the Previewer, section 4


def module_of(name: str, order: list[str]) -> str:
    """The module of a weight as the LoRA's file would call it."""
    if name.startswith("image_proj."):
        return RESAMPLER + name.removeprefix("image_proj.").removesuffix(".weight")
    if name.startswith("ip_adapter."):
        _, index, rest = name.split(".", 2)
        return f"unet.{order[int(index)].removesuffix('.processor')}.{rest.removesuffix('.weight')}"
    return f"unet.{name.removesuffix('.weight')}"


def lora_targets(names: list[str], order: list[str], suffixes: list[str]) -> dict[str, str]:
    """By the name of each adapted weight: its module."""
    modules = {name: module_of(name, order) for name in names if name.endswith(".weight")}
    return {name: module for name, module in modules.items() if module.endswith(tuple(f".{suffix}" for suffix in suffixes))}


def with_lora(weights: Weights, factors: Weights, config: dict[str, Any]) -> Weights:
    """The denoiser's weights with alpha/rank of the products of the factors added; each factor has its place and the reverse."""
    lora, left, changed = config["lora"], dict(factors), dict(weights)
    for name, module in lora_targets(list(weights), processor_order(config["unet"]), lora["target_modules"]).items():
        form = ("lora_A", "lora_B") if f"{module}.lora_A.weight" in left else ("lora.down", "lora.up")
        first, second = (left.pop(f"{module}.{kind}.weight") for kind in form)
        product = second.flatten(1) @ first.flatten(1)
        changed[name] = weights[name] + lora["alpha"] / lora["rank"] * product.view_as(weights[name])
    assert not left, f"factors without a place: {sorted(left)}"
    return changed


def single_step(alphas: Tensor, z: Tensor, output: Tensor, timesteps: Tensor, velocity: bool = False) -> Tensor:
    """The preview [R, C, h, w] from what the network said about z at timesteps [R]."""
    alpha = alphas.double()[timesteps].view(-1, 1, 1, 1)
    scaled = 10.0 * timesteps.double().view(-1, 1, 1, 1)
    a, b = alpha.sqrt(), (1 - alpha).sqrt()
    clean = a * z - b * output if velocity else (z - b * output) / a
    return scaled / (scaled**2 + 0.25).sqrt() * clean + 0.25 / (scaled**2 + 0.25) * z


# --- the Aggregator, section 5


class Aggregator:
    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.parts, missing = stock_unet(config["unet"], weights)
        unused = ("up_blocks.", "conv_norm_out.", "conv_out.")
        assert all(name.startswith(unused) or ".attn2." in name or ".norm2." in name for name in missing)
        for block in self.parts.modules():
            if isinstance(block, BasicTransformerBlock):
                block.attn2 = block.norm2 = None
        self.parts.up_blocks = None
        self.weights = weights

    def __call__(self, degraded: Tensor, reference: Tensor, timestep: int, pooled: Tensor, ids: Tensor, axis: int = 2) -> list[Tensor]:
        """Residuals of the skips in order, then of the middle; axis 2 puts the halves above each other, 3 side by side."""
        e = embedding(self.parts, torch.full((len(degraded),), timestep), pooled, ids)
        entered = self.parts.conv_in(degraded), self._conv("ref_conv_in", reference, padding=1)
        hidden = torch.cat(entered, dim=axis)
        skips = [hidden]
        for block in self.parts.down_blocks:
            hidden, outputs = block(hidden, e)
            skips += outputs
        names = [f"controlnet_down_blocks.{index}" for index in range(len(skips))]
        outputs = zip([*names, "controlnet_mid_block"], [*skips, self.parts.mid_block(hidden, e)], strict=True)
        return [self._residual(name, *output.chunk(2, dim=axis)) for name, output in outputs]

    def _residual(self, name: str, degraded: Tensor, preview: Tensor) -> Tensor:
        shared = F.silu(self._conv(f"{name}.0.mlp_shared.0", degraded, padding=1))
        gamma, beta = (self._conv(f"{name}.0.{kind}", shared, padding=1) for kind in ("mul", "add"))
        return self._conv(f"{name}.1", preview * (1 + gamma) + beta)

    def _conv(self, name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=padding)
