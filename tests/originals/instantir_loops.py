"""InstantIR's two sampling loops written once more: the release's (section 7) and the paper's Algorithm 1 (section 8).

A loop is given the inputs of `f_inputs`, in float64, and returns every tensor that a golden loop records, by its golden name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from originals.instantir import Aggregator, Denoiser, Prompt, Weights, single_step, with_lora
from torch import Tensor


@dataclass(frozen=True)
class Networks:
    config: dict[str, Any]
    denoiser: Denoiser
    previewer: Denoiser
    aggregator: Aggregator

    @classmethod
    def build(cls, config: dict[str, Any], denoiser: Weights, lora: Weights, aggregator: Weights) -> Networks:
        """From tensors in float64 by their published names."""
        previewer = Denoiser(config, with_lora(denoiser, lora, config))
        return cls(config, Denoiser(config, denoiser), previewer, Aggregator(config, aggregator))

    def scheduler(self, name: str, steps: int) -> Any:
        kind = DDIMScheduler if name.startswith("DDIM") else DDPMScheduler
        extra = {"set_alpha_to_one": False} if kind is DDIMScheduler else {"variance_type": "fixed_small"}
        scheduler = kind(**self.config["scheduler"], **extra)
        scheduler.set_timesteps(steps)
        return scheduler

    def middle_shape(self, z: Tensor) -> tuple[int, int, int]:
        """Channels, height and width in the middle block for latents [B, C, h, w]."""
        channels = self.config["unet"]["block_out_channels"]
        height, width = (size // 2 ** (len(channels) - 1) for size in z.shape[2:])
        return channels[-1], height, width

    def look(self, alphas: Tensor, z: Tensor, timestep: int, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """The Previewer's eps and preview [R, C, h, w]."""
        eps = self.previewer(z, timestep, prompt)
        return eps, single_step(alphas, z, eps, torch.full((len(z),), timestep))


def prompt_of(inputs: Weights, guided: bool) -> Prompt:
    """Unconditional rows first. Size ids of their own (`negative_time_ids`) are no part of the golden form."""

    def rows(unconditional: str, conditional: str) -> Tensor:
        return torch.cat([inputs[unconditional], inputs[conditional]]) if guided else inputs[conditional]

    ids = rows("negative_time_ids" if "negative_time_ids" in inputs else "time_ids", "time_ids")
    text, pooled = rows("negative_prompt_embeds", "prompt_embeds"), rows("negative_pooled", "pooled")
    return Prompt(text, pooled, ids, rows("uncond_image_tokens", "image_tokens"))


def guide(eps: Tensor, guidance: float | None, rescale: float = 0.0) -> Tensor:
    if guidance is None or guidance <= 1:
        return eps
    unconditional, conditional = eps.chunk(2)
    guided = unconditional + guidance * (conditional - unconditional)
    spread = [x.flatten(1).std(1).view(-1, 1, 1, 1) for x in (conditional, guided)]
    return (1 - rescale) * guided + rescale * guided * spread[0] / spread[1]


def distance(one: Tensor, other: Tensor | float) -> Tensor:
    """Squared L2 [B] over channels and pixels."""
    return ((one - other) ** 2).flatten(1).sum(1)


def scaled(factors: Tensor, residuals: list[Tensor]) -> list[Tensor]:
    return [factors.repeat(len(residual) // len(factors)).view(-1, 1, 1, 1) * residual for residual in residuals]


def update(scheduler: Any, eps: Tensor, timestep: Tensor, z: Tensor, noise: Callable[[], Tensor], found: Weights) -> None:
    """The stock scheduler's own step with a recorded draw in the place of its generator's."""
    if isinstance(scheduler, DDIMScheduler):
        stepped = scheduler.step(eps, timestep, z, eta=0.0)
    else:
        found["noise"] = noise()
        with patch.object(scheduling_ddpm, "randn_tensor", lambda *_, **__: found["noise"]):
            stepped = scheduler.step(eps, timestep, z)
    found |= {"eps": eps, "x0": stepped.pred_original_sample, "z_next": stepped.prev_sample}


def released(networks: Networks, inputs: Weights, told: dict[str, Any], noise: Callable[[], Tensor]) -> Weights:
    """The release's loop; `told` are its arguments, with `guidance_rescale` if any. A step that has no residuals yet adds none."""
    steps, guidance = told["num_inference_steps"], told["guidance_scale"]
    scheduler, copies = networks.scheduler(told["scheduler"], steps), 2 if guidance > 1 else 1
    prompt, degraded = prompt_of(inputs, guidance > 1), inputs["lq_latent"]
    first = noise()
    z = scheduler.add_noise(degraded, first, scheduler.timesteps[:1]) if told["init_latents_with_lq"] else first
    record = {"init_noise": first, "timesteps": scheduler.timesteps}
    factor, seen, before, residuals = torch.ones(len(z), dtype=z.dtype), torch.zeros_like(z), torch.zeros_like(z), None
    strengths = torch.as_tensor(told["controlnet_conditioning_scale"], dtype=torch.float64).expand(steps)
    for i, timestep in enumerate(scheduler.timesteps):
        found, rows = {"z": z}, z.repeat(copies, 1, 1, 1)
        in_control = i / steps >= told["control_guidance_start"] and (i + 1) / steps <= told["control_guidance_end"]
        share = factor.clamp(min=0).minimum(strengths[i]) * in_control
        if share.max() > 0.1:
            reference = inputs.get("reference_latent", degraded).repeat(copies, 1, 1, 1)
            if i / steps >= told["preview_start"] and (i + 1) / steps <= told["preview_end"]:
                found["preview_eps"], reference = networks.look(scheduler.alphas_cumprod, rows, int(timestep), prompt)
                found["preview"], seen = reference, reference.chunk(copies)[-1]
            found["reference"] = reference
            residuals = networks.aggregator(degraded.repeat(copies, 1, 1, 1), reference, int(timestep), prompt.pooled, prompt.ids)
        # Those of an earlier step already carry its factor.
        residuals = scaled(share, residuals) if residuals else None
        found["res_mid"] = residuals[-1] if residuals else z.new_zeros(len(rows), *networks.middle_shape(z))
        eps = networks.denoiser(rows, int(timestep), prompt, residuals)
        update(scheduler, guide(eps, guidance, told.get("guidance_rescale", 0.0)), timestep, z, noise, found)
        if told["adastep_restore"]:
            factor, before = distance(seen, found["x0"]) / distance(seen, before), seen
        z = found["z_next"]
        record |= {f"step{i}_{name}": value for name, value in found.items()}
    return {**record, "final_latent": z}


def algorithm_1(networks: Networks, inputs: Weights, variant: dict[str, Any], steps: int, start: Tensor) -> Weights:
    """The paper's loop from the noise `start`, its printed line 8 or the DDIM step."""
    guidance, printed = variant["guidance_scale"], "as printed" in variant["update"]
    guided = guidance is not None
    scheduler = networks.scheduler("DDIM", steps)
    alphas = scheduler.alphas_cumprod.double()
    prompt, degraded = prompt_of(inputs, guided), inputs["lq_latent"]
    z, before, delta = start, torch.zeros_like(start), torch.ones(len(start), dtype=start.dtype)
    record = {"z_T": start, "timesteps": scheduler.timesteps}
    levels = [(alphas[t].sqrt(), (1 - alphas[t]).sqrt()) for t in scheduler.timesteps] + [(torch.tensor(1.0), torch.tensor(0.0))]
    for i, timestep in enumerate(scheduler.timesteps.tolist()):
        (a, b), (a_next, b_next) = levels[i : i + 2]
        rows = torch.cat([z, z]) if guided else z
        preview = networks.look(alphas, rows, timestep, prompt)[1]
        twice = torch.cat([degraded, degraded]) if guided else degraded
        reference = preview + scaled(delta, [twice - preview])[0]
        residuals = networks.aggregator(twice, reference, timestep, prompt.pooled, prompt.ids)
        eps = guide(networks.denoiser(rows, timestep, prompt, residuals), guidance)
        clean = (z - b * eps) / a
        own = preview[-len(z) :]
        used, delta = delta, distance(own, clean) / distance(own, before)
        if variant["delta_clamped_to_0_1"]:
            delta = delta.clamp(0, 1)
        following = b_next / b * z - ((1 if printed else b_next) * a / b - a_next) * clean
        found = {"z": z, "preview": preview, "delta_used": used, "z_ref": reference, "eps": eps, "z_bar": clean, "delta_next": delta}
        record |= {f"step{i}_{name}": value for name, value in {**found, "z_next": following}.items()}
        z, before = following, own
    return {**record, "final_latent": z}
