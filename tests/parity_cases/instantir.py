"""InstantIR: Resampler, decoupled attention, Aggregator, U-Net with residuals and the Previewer's single step (inference)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from kintsugi.core.diffusion import NoiseSchedule, constant_schedule, ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods import instantir_assembly as assembly
from kintsugi.core.methods.instantir import SOLVERS, Level, Options, leading_timesteps, sample
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR, single_step
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.dcp import DCP, ImageContext, cross_attention_widths
from kintsugi.core.models.instant_unet import InstantUNet
from kintsugi.core.models.lora_switch import LoraSwitch
from kintsugi.core.models.mini import build_unet
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.models.sdxl_embedding import sdxl_embedding
from kintsugi.core.weights.files import load_strictly
from kintsugi.core.weights.previewer import previewer_factors
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar, load_tensors
from torch import Tensor, nn


@dataclass(frozen=True)
class Networks:
    """What the weight files beside a sidecar hold, built from config.json."""

    sidecar: Sidecar

    @cached_property
    def config(self) -> dict[str, Any]:
        path = self.sidecar.path.with_name("config.json")
        if not path.is_file():
            raise BadRequestError(f"{path}: the configuration is missing")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def weights(self, name: str) -> dict[str, Tensor]:
        described = Sidecar.read(self.sidecar.path.with_name(f"weights_{name}.json"))
        if described is None:
            raise BadRequestError(f"weights_{name}.json describes no tensors")
        return described.tensors

    def plain_unet(self) -> Any:
        unet = build_unet(self.config["unet"])
        load_strictly(unet, self.weights("unet"), "weights_unet")
        return unet.eval()

    @cached_property
    def unet(self) -> Any:
        return self.plain_unet()

    @cached_property
    def dcp(self) -> DCP:
        sizes = {name: value for name, value in self.config["resampler"].items() if name in ResamplerConfig.__annotations__}
        dcp = DCP(cross_attention_widths(self.unet), self.config["time_embed_dim"], ResamplerConfig(**sizes))
        load_strictly(dcp, self.weights("dcp"), "weights_dcp")
        return dcp.eval()

    @property
    def schedule(self) -> NoiseSchedule:
        told = self.config["scheduler"]
        return ddpm_schedule(scaled_linear_betas(told["beta_start"], told["beta_end"], told["num_train_timesteps"]))

    @cached_property
    def switch(self) -> LoraSwitch:
        return self.previewer(merged=False)

    def previewer(self, merged: bool) -> LoraSwitch:
        lora = self.config["lora"]
        factors = previewer_factors(self.weights("previewer_lora"), self.unet, self.dcp, lora["rank"], "weights_previewer_lora")
        return LoraSwitch(nn.ModuleDict({"unet": self.unet, "dcp": self.dcp}), factors, lora["alpha"] / lora["rank"], merged)

    @cached_property
    def aggregator(self) -> Aggregator:
        aggregator = Aggregator(build_unet(self.config["unet"]))
        load_strictly(aggregator, self.weights("aggregator"), "weights_aggregator")
        return aggregator.eval()


MIDDLE = "res_mid"


def numbered(sidecar: Sidecar, pattern: str) -> list[str]:
    """Its names of that pattern, by the number in them."""
    found = [match for name in sidecar.names if (match := re.fullmatch(pattern, name))]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]


def is_resampler(sidecar: Sidecar) -> bool:
    return "after_proj_in" in sidecar.names


@torch.inference_mode()
def check_resampler(sidecar: Sidecar) -> Iterator[Check]:
    networks = Networks(sidecar)
    dcp, unet = networks.dcp, networks.unet
    resampler, tokens = dcp.image_proj, sidecar.tensor("tokens")
    projected = resampler.proj_in(tokens)
    yield sidecar.compare("resampler", "after_proj_in", projected)
    queries = resampler.latents.expand(tokens.shape[0], -1, -1)
    for index, (attention, feed_forward) in enumerate(resampler.layers):
        queries = queries + attention(projected, queries)
        yield sidecar.compare("resampler", f"layer{index}_after_attn", queries)
        queries = queries + feed_forward(queries)
        yield sidecar.compare("resampler", f"layer{index}_after_ff", queries)
    yield sidecar.compare("resampler", "output", resampler(tokens))
    yield sidecar.compare("resampler", "uncond_output", resampler(sidecar.tensor("uncond_tokens")))
    for merged in (False, True):
        with networks.previewer(merged).on():
            yield sidecar.compare("resampler", "output_lora", resampler(tokens), "merged" if merged else "live")
    layer = dcp.ip_adapter[str(sidecar.content["processor_index"])]
    tokens = sidecar.tensor("output")
    for name in (name for name in sidecar.names if name.startswith("temb_t")):
        timestep = torch.tensor([int(name.removeprefix("temb_t"))])
        embedding = sdxl_embedding(unet, timestep, sidecar.tensor("pooled_text"), sidecar.tensor("time_ids"))
        yield sidecar.compare("resampler", name, embedding)
        for kind, project, norm in (("key", layer.to_k_ip, layer.ln_k_ip), ("value", layer.to_v_ip, layer.ln_v_ip)):
            modulated = norm(norm.normalised(project(tokens)), sidecar.tensor(name))
            yield sidecar.compare("resampler", name.replace("temb", f"adaln_{kind}"), modulated)


def is_attention(sidecar: Sidecar) -> bool:
    return "output_scale1_lora" in sidecar.names


@torch.inference_mode()
def check_attention(sidecar: Sidecar) -> Iterator[Check]:
    networks = Networks(sidecar)
    dcp, unet = networks.dcp, networks.unet
    attention = unet.get_submodule(sidecar.content["module"])

    index = sidecar.content["processor_index"]

    def run(weight: float) -> Tensor:
        image = {index: dcp.layers[index].image_keys(sidecar.tensor("ip_tokens"))}
        with dcp.attached(unet), dcp.seeing(ImageContext(image, weights={index: weight})):
            dcp.sight.time_embedding = sidecar.tensor("temb")
            output: Tensor = attention(sidecar.tensor("hidden_states"), encoder_hidden_states=sidecar.tensor("text_context"))
            return output

    for name, weight in (("output_scale1", 1.0), ("output_scale0", 0.0), ("output_scale05", 0.5)):
        yield sidecar.compare("attention", name, run(weight))
    for merged in (False, True):
        with networks.previewer(merged).on():
            yield sidecar.compare("attention", "output_scale1_lora", run(1.0), "merged" if merged else "live")


def is_aggregator(sidecar: Sidecar) -> bool:
    return {"lq_latent", "preview_latent"} <= set(sidecar.names)


def residuals_of(sidecar: Sidecar, aggregator: Aggregator, timestep: int) -> dict[str, Tensor]:
    """By the suffix that their golden names have."""
    inputs = (sidecar.tensor("lq_latent"), sidecar.tensor("preview_latent"), torch.tensor([timestep]))
    *skips, middle = aggregator(*inputs, sidecar.tensor("pooled_text"), sidecar.tensor("time_ids"))
    return {**{f"down{index}": skip for index, skip in enumerate(skips)}, "mid": middle}


@torch.inference_mode()
def check_aggregator(sidecar: Sidecar) -> Iterator[Check]:
    aggregator = Networks(sidecar).aggregator
    prefixes = sorted({name.rsplit("_", 1)[0] for name in sidecar.names if name.endswith("_mid")})
    for prefix in prefixes:
        aggregator.dimension = 3 if prefix.startswith("width") else 2
        for suffix, residual in residuals_of(sidecar, aggregator, int(prefix.rsplit("t", 1)[1])).items():
            yield sidecar.compare("aggregator", f"{prefix}_{suffix}", residual)


def is_unet(sidecar: Sidecar) -> bool:
    return "eps_dcp_residuals" in sidecar.names


@torch.inference_mode()
def check_unet(sidecar: Sidecar) -> Iterator[Check]:
    networks = Networks(sidecar)
    dcp, unet = networks.dcp, networks.unet
    timestep = torch.tensor([sidecar.content["timestep"]])
    conditions = {"text_embeds": sidecar.tensor("pooled_text"), "time_ids": sidecar.tensor("time_ids")}
    embedding = sdxl_embedding(unet, timestep, *conditions.values())
    yield sidecar.compare("unet", "temb", embedding)
    stored = [sidecar.tensor(name) for name in numbered(sidecar, r"res_down(\d+)")]

    def run(weight: float = 0.0, image: bool = True) -> Tensor:
        extra = {}
        if weight:
            extra = {"down_block_additional_residuals": [weight * skip for skip in stored]}
            extra["mid_block_additional_residual"] = weight * sidecar.tensor("res_mid")
        keys = dcp.image_keys(sidecar.tensor("image_tokens")) if image else {}
        with dcp.attached(unet), dcp.seeing(ImageContext(keys)):
            text = sidecar.tensor("text_context")
            eps: Tensor = unet(sidecar.tensor("sample"), timestep, text, added_cond_kwargs=conditions, **extra).sample
            return eps

    yield sidecar.compare("unet", "eps_plain", run(image=False))
    yield sidecar.compare("unet", "eps_dcp", run())
    yield sidecar.compare("unet", "eps_dcp_residuals", run(1.0))
    yield sidecar.compare("unet", "eps_dcp_residuals_half", run(0.5))
    for merged in (False, True):
        with networks.previewer(merged).on():
            yield sidecar.compare("unet", "eps_previewer", run(), "merged" if merged else "live")


def is_single_step(sidecar: Sidecar) -> bool:
    return {"c_skip", "model_output", "alphas_cumprod"} <= set(sidecar.names)


def check_single_step(sidecar: Sidecar) -> Iterator[Check]:
    networks = Networks(sidecar)
    table = networks.schedule
    yield sidecar.compare("single step", "alphas_cumprod", table.signal(torch.arange(1000)) ** 2)
    timesteps = sidecar.tensor("timesteps")
    yield sidecar.compare("single step", "alphas_cumprod_at_t", table.signal(timesteps) ** 2)
    # Where signal and noise are 1, noise 1 in a latent of 1 leaves nothing, and noise -1 in one of 0 leaves 1.
    unit, ones = constant_schedule(1.0, 1.0), torch.ones(len(timesteps), 1, 1, 1)
    yield sidecar.compare("single step", "c_skip", single_step(unit, ones, ones, timesteps).flatten())
    yield sidecar.compare("single step", "c_out", single_step(unit, 0 * ones, -ones, timesteps).flatten())
    sample, output = sidecar.tensor("sample"), sidecar.tensor("model_output")
    for name in sidecar.names:
        found = re.fullmatch(r"(eps|v)_t(\d+)", name)
        if found:
            kind = "epsilon" if found[1] == "eps" else "v"
            yield sidecar.compare("single step", name, single_step(table, sample, output, torch.tensor([int(found[2])]), kind))
    yield sidecar.compare("single step", "eps_batch", single_step(table, sample, output, sidecar.tensor("batch_timesteps")))


# --- sampling


def is_loop(sidecar: Sidecar) -> bool:
    return {"timesteps", "final_latent"} <= set(sidecar.names)


def options_of(sidecar: Sidecar) -> Options:
    """The settings of a loop of the release, or of a variant of Algorithm 1."""
    steps = len(sidecar.tensor("timesteps"))
    if "variant" in sidecar.content:
        variant = sidecar.content["variant"]
        solver = "printed" if "as printed" in variant["update"] else "ddim"
        free = not variant["delta_clamped_to_0_1"]
        return Options(steps, variant["guidance_scale"] or 1.0, sampler=solver, adares="paper", start_from_degraded=False, quirks=free)
    told = sidecar.content["arguments"]
    strength = told["controlnet_conditioning_scale"]
    return Options(
        steps=steps,
        guidance=told["guidance_scale"],
        sampler="ddim" if "DDIM" in told["scheduler"] else "ddpm",
        adares="released" if told["adastep_restore"] else "off",
        start_from_degraded=told["init_latents_with_lq"],
        preview_start=told["preview_start"],
        preview_end=told["preview_end"],
        control_start=told["control_guidance_start"],
        creative_start=told["control_guidance_end"],
        # The release bounds a factor by it, and without AdaRes that factor is 1.
        strength=strength if told["adastep_restore"] else min(strength, 1.0),
        quirks=told["adastep_restore"],
    )


def printed_step(z: Tensor, x0: Tensor, eps: Tensor, level: Level, following: Level, noise: Tensor) -> Tensor:
    """Line 8 of Algorithm 1 as printed: no DDIM step, kept only to hold the golden of the misprint."""
    return following[1] / level[1] * z - (level[0] / level[1] - following[0]) * x0


def conditions_of(networks: Networks, model: InstantIR, guidance: float) -> Conditions:
    inputs = Sidecar.read(networks.sidecar.path.with_name("f_inputs.json"))
    if inputs is None:
        raise BadRequestError("f_inputs.json describes no tensors")

    def rows(unconditional: str, conditional: str) -> Tensor:
        own = inputs.tensor(conditional)
        return torch.cat([inputs.tensor(unconditional), own]) if guidance > 1 else own

    return assembly.conditions_of(
        model,
        rows("uncond_image_tokens", "image_tokens"),
        rows("negative_prompt_embeds", "prompt_embeds"),
        rows("negative_pooled", "pooled"),
        rows("time_ids", "time_ids"),
    )


@torch.inference_mode()
def check_loop(sidecar: Sidecar) -> Iterator[Check]:
    networks, options = Networks(sidecar), options_of(sidecar)
    SOLVERS["printed"] = printed_step
    model = InstantIR(InstantUNet(networks.unet, networks.dcp), networks.switch, networks.aggregator, networks.schedule)
    conditions = conditions_of(networks, model, options.guidance)
    degraded = load_tensors(sidecar.path.with_name("f_inputs.safetensors"))["lq_latent"]
    first = sidecar.tensor("init_noise" if "init_noise" in sidecar.names else "z_T")
    noises = iter([first, *(sidecar.tensor(name) for name in numbered(sidecar, r"step(\d+)_noise"))])
    yield sidecar.compare("loop", "timesteps", torch.tensor(leading_timesteps(options.steps)))
    with networks.dcp.attached(networks.unet):
        steps = list(sample(model, degraded, conditions, options, lambda: next(noises)))
    clamped, delta = not options.quirks, torch.ones(len(degraded))
    for index, step in enumerate(steps):
        seen = {"preview": step.preview.latent, "preview_eps": step.preview.eps} if step.preview else {"preview": None}
        # The release adds zeros where control is off.
        recorded = f"step{index}_{MIDDLE}"
        middle = step.residuals[-1] if step.residuals else None
        if middle is None and recorded in sidecar.names:
            middle = torch.zeros_like(sidecar.tensor(recorded))
        known = {**step.__dict__, **seen, MIDDLE: middle, "z_bar": step.x0, "z_ref": step.reference}
        following = step.delta.clamp(0, 1) if clamped else step.delta
        known |= {"delta_used": delta, "delta_next": following}
        delta = following
        yield from step_checks(sidecar, f"step{index}_", known)
    yield sidecar.compare("loop", "final_latent", steps[-1].z_next)


def step_checks(sidecar: Sidecar, prefix: str, known: dict[str, Any]) -> Iterator[Check]:
    for name in (name for name in sidecar.names if name.startswith(prefix)):
        kind = name.removeprefix(prefix)
        if kind == "noise":
            continue  # an input
        if known.get(kind) is None:
            yield sidecar.failed("loop", name, "this step has no such thing here")
        else:
            yield sidecar.compare("loop", name, known[kind])
    ran = {kind for kind in ("preview", "reference", "z_ref") if f"{prefix}{kind}" in sidecar.names}
    extra = [kind for kind in ("preview", "reference") if known[kind] is not None and not ran & {kind, "z_ref"}]
    for kind in extra:
        yield sidecar.failed("loop", f"{prefix}z", f"{kind} ran here and did not run in the reference")


CASES = (
    Case("resampler", "inference", is_resampler, check_resampler),
    Case("attention", "inference", is_attention, check_attention),
    Case("aggregator", "inference", is_aggregator, check_aggregator),
    Case("unet", "inference", is_unet, check_unet),
    Case("single step", "inference", is_single_step, check_single_step),
    Case("loop", "inference", is_loop, check_loop),
)
