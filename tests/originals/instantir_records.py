"""What the sidecars of InstantIR's golden form record, computed by originals/instantir.py from what is given to them.

Each function takes the networks, the sidecar's own words and its given tensors in float64, and returns every tensor of it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from originals.instantir import Prompt, Weights, embedding, image_key_value, part, resampler_stages, single_step
from originals.instantir_loops import Networks, algorithm_1, released
from torch import Tensor

Words = dict[str, Any]


def resampler(networks: Networks, words: Words, given: Weights, timesteps: list[int]) -> Weights:
    heads, adapted = networks.denoiser.heads, networks.previewer.resampler
    record = {**given, **resampler_stages(networks.denoiser.resampler, heads, given["tokens"])}
    record["uncond_output"] = networks.denoiser.resample(given["uncond_tokens"])
    record["output_lora"] = resampler_stages(adapted, heads, given["tokens"])["output"]
    layer = part(networks.denoiser.weights, f"ip_adapter.{words['processor_index']}.")
    for t in timesteps:
        times = torch.full((len(given["tokens"]),), t)
        e = embedding(networks.denoiser.unet, times, given["pooled_text"], given["time_ids"])
        key, value = image_key_value(layer, record["output"], e)
        record |= {f"temb_t{t}": e, f"adaln_key_t{t}": key, f"adaln_value_t{t}": value}
    return record


def attention(networks: Networks, words: Words, given: Weights) -> Weights:
    def run(one: Any, weight: float) -> Tensor:
        one.scene.tokens, one.scene.e, one.scene.weight = given["ip_tokens"], given["temb"], weight
        output = one.unet.get_submodule(words["module"])(given["hidden_states"], encoder_hidden_states=given["text_context"])
        one.scene.weight = 1.0
        return output

    named = {f"output_scale{name}": run(networks.denoiser, weight) for name, weight in (("1", 1.0), ("0", 0.0), ("05", 0.5))}
    return {**given, **named, "output_scale1_lora": run(networks.previewer, 1.0)}


def aggregator(networks: Networks, given: Weights, prefixes: list[str]) -> Weights:
    """Prefixes such as t501 or width_t501."""
    record = dict(given)
    for prefix in prefixes:
        timestep, axis = int(prefix.rsplit("t", 1)[1]), 3 if prefix.startswith("width") else 2
        record |= named_residuals(residuals_of(networks, given, timestep, axis), f"{prefix}_")
    return record


def residuals_of(networks: Networks, given: Weights, timestep: int, axis: int = 2) -> list[Tensor]:
    latents = given["lq_latent"], given["preview_latent"]
    return networks.aggregator(*latents, timestep, given["pooled_text"], given["time_ids"], axis)


def named_residuals(residuals: list[Tensor], prefix: str) -> Weights:
    *skips, middle = residuals
    return {**{f"{prefix}down{index}": skip for index, skip in enumerate(skips)}, f"{prefix}mid": middle}


def unet(networks: Networks, words: Words, given: Weights) -> Weights:
    """`given` has the residuals too."""
    t, text = words["timestep"], given["text_context"]
    seeing, blind = (Prompt(text, given["pooled_text"], given["time_ids"], image) for image in (given["image_tokens"], None))
    skips = [name for name in given if name.startswith("res_down")]
    residuals = [given[name] for name in (*sorted(skips, key=lambda name: int(name.removeprefix("res_down"))), "res_mid")]
    e = embedding(networks.denoiser.unet, torch.full((len(text),), t), given["pooled_text"], given["time_ids"])
    return {
        **given,
        "temb": e,
        "eps_dcp": networks.denoiser(given["sample"], t, seeing),
        "eps_dcp_residuals": networks.denoiser(given["sample"], t, seeing, residuals),
        "eps_dcp_residuals_half": networks.denoiser(given["sample"], t, seeing, [residual / 2 for residual in residuals]),
        "eps_previewer": networks.previewer(given["sample"], t, seeing),
        "eps_plain": networks.denoiser(given["sample"], t, blind),
    }


def single_steps(networks: Networks, given: Weights) -> Weights:
    alphas, timesteps, rows = networks.scheduler("DDPM", 1).alphas_cumprod, given["timesteps"], len(given["sample"])
    scaled = 10.0 * timesteps.double()
    record = {"c_skip": 0.25 / (scaled**2 + 0.25), "c_out": scaled / (scaled**2 + 0.25).sqrt()}
    record |= {"alphas_cumprod": alphas, "alphas_cumprod_at_t": alphas[timesteps]}
    for t in timesteps.tolist():
        for kind in ("eps", "v"):
            preview = single_step(alphas, given["sample"], given["model_output"], torch.full((rows,), t), kind == "v")
            record[f"{kind}_t{t}"] = preview
    return {**given, **record, "eps_batch": single_step(alphas, given["sample"], given["model_output"], given["batch_timesteps"])}


def loop(networks: Networks, words: Words, inputs: Weights, noise: Callable[[], Tensor], steps: int) -> Weights:
    if "variant" in words:
        return algorithm_1(networks, inputs, words["variant"], steps, noise())
    return released(networks, inputs, words["arguments"], noise)


def recorded_noise(given: Weights) -> Callable[[], Tensor]:
    """The draws of a recorded loop, in their order."""
    later = (given[name] for i in range(len(given["timesteps"])) if (name := f"step{i}_noise") in given)
    draws = chain([given["init_noise" if "init_noise" in given else "z_T"]], later)
    return lambda: next(draws)
