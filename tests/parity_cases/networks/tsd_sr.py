"""TSD-SR's networks that lie beside a sidecar: with their adapters merged, as they restore, and beside their base, as they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from kintsugi.core.methods.tsd_sr import OneStepConstants, TsdSr
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_sd3_transformer, build_vae
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.files import build_network
from kintsugi.core.weights.lora import Adapter, merge
from kintsugi.training.adapters import Adapted
from kintsugi.training.latents import Autoencoder
from kintsugi.training.tsd_sr_networks import Encoding, Student, adapt, load_factors, published_factors
from parity_cases.sidecar import Sidecar, load_tensors
from torch import Tensor, nn


def stored(sidecar: Sidecar, name: str) -> dict[str, Tensor]:
    return load_tensors(sidecar.path.with_name(f"{name}.safetensors"))


def stored_vae(sidecar: Sidecar) -> dict[str, Tensor]:
    return {**stored(sidecar, "weights_vae_encoder"), **stored(sidecar, "weights_vae_decoder")}


def codec_with(sidecar: Sidecar, tensors: dict[str, Tensor]) -> LatentCodec:
    return LatentCodec(build_network(partial(build_vae, sidecar.config["vae"]), tensors, "weights_vae"))


def method_with(sidecar: Sidecar, tensors: dict[str, Tensor]) -> TsdSr:
    """Told the student's prompt."""
    transformer = build_network(partial(build_sd3_transformer, sidecar.config["transformer"]), tensors, "weights_transformer")
    prompts = stored(sidecar, "prompts")
    prompt = PromptEmbedding(prompts["prompt_embeds"], prompts["pool_embeds"])
    return TsdSr(transformer, prompt, OneStepConstants(latent_offset(sidecar))).eval()


def latent_offset(sidecar: Sidecar) -> float:
    """What our scaled latents lack against the release's."""
    vae = sidecar.config["vae"]
    return float(vae["scaling_factor"] * vae["shift_factor"])


# --- merged


def merged(sidecar: Sidecar, base: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    lora = sidecar.config["lora"][part]
    scale = lora["alpha"] / lora["r"]
    return merge(base, Adapter(stored(sidecar, f"lora_{part}"), lora["targets"], lora["r"], f"lora_{part}", scale=scale), torch.float32)


def codec_of(sidecar: Sidecar) -> LatentCodec:
    return codec_with(sidecar, merged(sidecar, stored_vae(sidecar), "vae"))


def method_of(sidecar: Sidecar) -> TsdSr:
    """The student with its constants folded, as a person has it."""
    method = method_with(sidecar, merged(sidecar, stored(sidecar, "weights_transformer"), "transformer"))
    method.fold()
    return method


# --- in training


@dataclass(frozen=True)
class TrainingNetworks:
    """One base of all adapters."""

    sidecar: Sidecar

    @cached_property
    def method(self) -> TsdSr:
        return method_with(self.sidecar, stored(self.sidecar, "weights_transformer")).requires_grad_(False)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        return Autoencoder(codec_with(self.sidecar, stored_vae(self.sidecar)).vae.requires_grad_(False))

    @cached_property
    def student(self) -> Student:
        student = Student(self._adapted(Encoding(self.autoencoder), "vae"), self._adapted(self.method, "transformer"))
        for part, factors in student.published().items():
            load_factors(factors, stored(self.sidecar, f"lora_{part}"), f"lora_{part}")
        return student

    @cached_property
    def auxiliary(self) -> Adapted:
        return self._with_factors("reg", "lora_reg")

    @cached_property
    def teacher(self) -> nn.Module:
        """The base itself, or with an adapter that is described as "same as" the student's."""
        if not self.sidecar.config["use_teacher_lora"]:
            return self.method.transformer
        lora = self.sidecar.config["lora"]["teacher"]
        return self._with_factors(lora.removeprefix("same as ") if isinstance(lora, str) else "teacher", "lora_teacher")

    def _with_factors(self, part: str, file: str) -> Adapted:
        adapted = self._adapted(self.method.transformer, part)
        load_factors(published_factors(adapted), stored(self.sidecar, file), file)
        return adapted

    def _adapted(self, network: nn.Module, part: str) -> Adapted:
        lora = self.sidecar.config["lora"][part]
        return adapt(network, lora["targets"], lora["r"], lora["alpha"] / lora["r"])
