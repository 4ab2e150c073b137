"""TSD-SR: the published path from picture to picture, its tiles, its tiled VAE, its colour fix and its schedule (inference)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from kintsugi.core.diffusion import shifted_sigmas
from kintsugi.core.imaging.color_fix import adain_fix, low_frequencies, wavelet_fix
from kintsugi.core.methods.tsd_sr import OneStepConstants, TsdSr
from kintsugi.core.methods.tsd_sr_release import (
    ReleaseSettings,
    network_input,
    restore_as_released,
    tile_starts,
    tiled_velocity,
    to_8_bit,
    window,
    working_size,
)
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_sd3_transformer, build_vae
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.models.tiled_vae_published import Box, decode_published, encode_published, plan_decode, plan_encode
from kintsugi.core.weights.files import build_network
from kintsugi.core.weights.lora import Adapter, merge
from parity_cases.sidecar import Case, Check, Sidecar, load_tensors
from torch import Tensor

Computed = dict[str, Tensor]


def report(sidecar: Sidecar, case: str, inputs: Iterable[str], computed: Computed) -> Iterator[Check]:
    """A check for every tensor of the sidecar that is no input."""
    for name in sidecar.names:
        if name in computed:
            yield sidecar.compare(case, name, computed[name])
        elif name not in inputs:
            yield sidecar.failed(case, name, "no check knows this tensor")


# --- the networks that lie beside a sidecar, with their adapters merged


def stored(sidecar: Sidecar, name: str) -> dict[str, Tensor]:
    return load_tensors(sidecar.path.with_name(f"{name}.safetensors"))


def merged(sidecar: Sidecar, base: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    lora = sidecar.config["lora"][part]
    scale = lora["alpha"] / lora["r"]
    return merge(base, Adapter(stored(sidecar, f"lora_{part}"), lora["targets"], lora["r"], f"lora_{part}", scale=scale), torch.float32)


def codec_of(sidecar: Sidecar) -> LatentCodec:
    base = {**stored(sidecar, "weights_vae_encoder"), **stored(sidecar, "weights_vae_decoder")}
    tensors = merged(sidecar, base, "vae")
    return LatentCodec(build_network(partial(build_vae, sidecar.config["vae"]), tensors, "weights_vae"))


def method_of(sidecar: Sidecar) -> TsdSr:
    """The student with its constants folded, as a person has it."""
    tensors = merged(sidecar, stored(sidecar, "weights_transformer"), "transformer")
    transformer = build_network(partial(build_sd3_transformer, sidecar.config["transformer"]), tensors, "weights_transformer")
    prompts = stored(sidecar, "prompts")
    prompt = PromptEmbedding(prompts["prompt_embeds"], prompts["pool_embeds"])
    method = TsdSr(transformer, prompt, OneStepConstants(latent_offset(sidecar))).eval()
    method.fold()
    return method


def latent_offset(sidecar: Sidecar) -> float:
    """What our scaled latents lack against the release's."""
    vae = sidecar.config["vae"]
    return float(vae["scaling_factor"] * vae["shift_factor"])


def settings_of(sidecar: Sidecar, **changes: Any) -> ReleaseSettings:
    config = sidecar.config
    numbers = config["upscale"], config["process_size"], config["latent_tiled_size"], config["latent_tiled_overlap"]
    return ReleaseSettings(*numbers, **changes)


# --- from picture to picture


def is_path(sidecar: Sidecar) -> bool:
    return {"lq", "vae_noise", "model_pred"} <= set(sidecar.names)


@torch.inference_mode()
def check_path(sidecar: Sidecar) -> Iterator[Check]:
    method, codec, settings = method_of(sidecar), codec_of(sidecar), settings_of(sidecar)
    source, noise, offset = sidecar.tensor("lq"), sidecar.tensor("vae_noise"), latent_offset(sidecar)
    height, width, _ = working_size(*source.shape[:2], settings)
    picture = network_input(source, height, width)
    mean, log_variance = moments(codec, 2 * picture - 1).chunk(2, dim=1)
    latent = codec.encode(picture, noise)
    velocity = tiled_velocity(method, latent, settings.latent_tile, settings.latent_overlap)
    outputs = {f"out_{fix}": settings_of(sidecar, color_fix=fix) for fix in ("nofix", "wavelet", "adain")}
    computed = {
        "main_size": torch.tensor([height, width]),
        "pixel_values": 2 * picture - 1,
        "latent_mean": mean,
        "latent_logvar": log_variance.clamp(-30, 20),
        "model_input": latent + offset,
        "model_pred": velocity,
        "model_pred_untiled": method.velocity(latent),
        "latent_student": latent + offset - velocity,
        "image": (2 * codec.decode(latent - velocity) - 1)[0].clamp(-1, 1),
        **{name: restore_as_released(method, codec, source, noise, chosen) for name, chosen in outputs.items() if name in sidecar.names},
        **tiled_case(sidecar, latent, settings),
        **narrow_case(sidecar, method),
    }
    yield from report(sidecar, "path", ("lq", "vae_noise", "narrow_input"), computed)


def tiled_case(sidecar: Sidecar, latent: Tensor, settings: ReleaseSettings) -> Computed:
    if "tile_weights" not in sidecar.names:
        return {}
    return tiling_of("", *latent.shape[-2:], settings.latent_tile, settings.latent_overlap)


def narrow_case(sidecar: Sidecar, method: TsdSr) -> Computed:
    """A latent whose shorter side is below the tile."""
    if "narrow_input" not in sidecar.names:
        return {}
    latent = sidecar.tensor("narrow_input")
    tile, overlap = (sidecar.config["narrow"][name] for name in ("latent_tiled_size", "latent_tiled_overlap"))
    predicted = tiled_velocity(method, latent - latent_offset(sidecar), tile, overlap)
    return {"narrow_pred": predicted, **tiling_of("narrow_", *latent.shape[-2:], tile, overlap)}


def tiling_of(prefix: str, height: int, width: int, tile: int, overlap: int) -> Computed:
    size = min(tile, height, width)
    return {
        f"{prefix}tile_weights": window(size),
        f"{prefix}tile_x": torch.tensor(tile_starts(width, size, overlap)),
        f"{prefix}tile_y": torch.tensor(tile_starts(height, size, overlap)),
    }


def moments(codec: LatentCodec, pixels: Tensor) -> Tensor:
    return codec.vae.encode(pixels).latent_dist.parameters


# --- the tiled VAE


def is_tiled_encode(sidecar: Sidecar) -> bool:
    return "moments_tiled" in sidecar.names


@torch.inference_mode()
def check_tiled_encode(sidecar: Sidecar) -> Iterator[Check]:
    codec, pixels, tile = codec_of(sidecar), sidecar.tensor("image"), sidecar.config["encoder_tile_size"]
    plan = plan_encode(*pixels.shape[-2:], tile, codec.downscale)
    computed = {
        "moments_tiled": encode_published(codec.vae, pixels, tile),
        "moments_untiled": moments(codec, pixels),
        "in_boxes": boxes(plan.in_boxes),
        "out_boxes": boxes(plan.out_boxes),
    }
    yield from report(sidecar, "tiled encode", ("image",), computed)


def is_tiled_decode(sidecar: Sidecar) -> bool:
    return "image_tiled" in sidecar.names


@torch.inference_mode()
def check_tiled_decode(sidecar: Sidecar) -> Iterator[Check]:
    codec, latent, tile = codec_of(sidecar), sidecar.tensor("latent"), sidecar.config["decoder_tile_size"]
    plan = plan_decode(*latent.shape[-2:], tile, codec.downscale)
    computed = {
        "image_tiled": decode_published(codec.vae, latent, tile),
        "in_boxes": boxes(plan.in_boxes),
        "out_boxes": boxes(plan.out_boxes),
    }
    yield from report(sidecar, "tiled decode", ("latent",), computed)


def boxes(plan: list[Box]) -> Tensor:
    return torch.tensor([astuple(box) for box in plan])


# --- colours and schedule


def is_color_fix(sidecar: Sidecar) -> bool:
    return "wavelet_float" in sidecar.names


def check_color_fix(sidecar: Sidecar) -> Iterator[Check]:
    inputs = ("target", "source", "source_small")
    target, source, small = (sidecar.tensor(name).permute(2, 0, 1)[None].float() / 255 for name in inputs)
    wavelet, adain, low = wavelet_fix(target, source), adain_fix(target, small), low_frequencies(target)
    computed = {
        "wavelet_float": wavelet,
        "wavelet_high": target - low,
        "wavelet_low": low,
        "adain_float": adain,
        "wavelet_uint8": to_8_bit(wavelet),
        "adain_uint8": to_8_bit(adain),
    }
    yield from report(sidecar, "colour fix", inputs, computed)


def is_schedule(sidecar: Sidecar) -> bool:
    return set(sidecar.names) == {"timesteps", "sigmas"}


def check_schedule(sidecar: Sidecar) -> Iterator[Check]:
    config = sidecar.config["scheduler"]
    sigmas = shifted_sigmas(config["num_train_timesteps"], config["shift"])
    yield from report(sidecar, "schedule", (), {"sigmas": sigmas, "timesteps": sigmas * config["num_train_timesteps"]})


CASES = (
    Case("path", "inference", is_path, check_path),
    Case("tiled encode", "inference", is_tiled_encode, check_tiled_encode),
    Case("tiled decode", "inference", is_tiled_decode, check_tiled_decode),
    Case("colour fix", "inference", is_color_fix, check_color_fix),
    Case("schedule", "inference", is_schedule, check_schedule),
)
