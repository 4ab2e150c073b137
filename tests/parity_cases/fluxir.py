"""FluxIR: the adapter's features and controls, the velocity they lead to in both modes, and a trajectory (inference); its losses,
what they mean to the adapter's parameters, and the times that training draws (training)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from kintsugi.core.methods.fluxir import Options, sample
from kintsugi.core.models.codec import as_pixels
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import Features, FluxAdapter, Injection
from kintsugi.core.models.flux_tokens import image_positions, pack_latent, unpack_latent
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.files import build_network
from kintsugi.training.latents import Autoencoder
from kintsugi.training.losses import PixelForm, clamped_times
from kintsugi.training.stages.fluxir import Drawn, SteeredFlux, steering_losses
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar
from torch import Tensor

INPUTS = ("z_0", "z_1", "z_lq", "t", "z_t", "prompt_t5", "prompt_clip", "img_ids", "txt_ids", "sigmas")
# Weights are inputs too; losses, gradients and the sampler of timesteps belong to training.
TRAINED = re.compile(r"loss\.|grad\.|sampler\.")
OTHERS = re.compile(rf"w\.|{TRAINED.pattern}")
# The pixel loss by the form that a tensor's name says.
PIXEL_LOSSES: dict[str, PixelForm] = {"loss.pixel": "noisy", "loss.pixel_clean_variant": "clean"}


@dataclass(frozen=True)
class Networks:
    """What the weights of a sidecar are, built from its configuration."""

    sidecar: Sidecar

    @cached_property
    def flux(self) -> Any:
        from diffusers import FluxTransformer2DModel

        return self._built(lambda: FluxTransformer2DModel.from_config(self.sidecar.content["transformer_config"]), "w.base.")

    def adapter(self, injection: Injection = "after") -> FluxAdapter:
        told = self.sidecar.content
        sizes = {"rank": told["se_rank"], "text_tokens": told["text_tokens"], "injection": injection}
        adapter: FluxAdapter = self._built(lambda: FluxAdapter.for_transformer(told["transformer_config"], **sizes), "w.adapter.")
        return adapter

    def autoencoder(self) -> Autoencoder:
        """Its decoder is the sidecar's; the encoder, which no tensor here goes through, is random."""
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_config(self.sidecar.content["vae_config"]).eval()
        own = {name.removeprefix("w.vae."): tensor for name, tensor in self.sidecar.tensors.items() if name.startswith("w.vae.")}
        missing, unknown = vae.load_state_dict(own, strict=False)
        faults = [*unknown, *(name for name in missing if not name.startswith(("encoder.", "quant_conv.")))]
        if faults:
            raise BadRequestError(f"{self.sidecar.path}: w.vae.* and vae_config do not fit: {', '.join(faults[:3])}")
        return Autoencoder(vae.requires_grad_(False))

    def _built(self, build: Any, prefix: str) -> Any:
        tensors = self.sidecar.tensors
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return build_network(build, own, f"{self.sidecar.path.name}, {prefix}*")

    def guidance(self) -> Tensor:
        """[B]"""
        return torch.full((self.sidecar.tensor("z_t").shape[0],), float(self.sidecar.content["guidance"]))

    def inputs(self) -> tuple[Tensor, ...]:
        """What adapter and network both take: prompt, pooled, t and guidance."""
        return (*(self.sidecar.tensor(name) for name in ("prompt_t5", "prompt_clip", "t")), self.guidance())

    def features(self) -> Features:
        z_t, z_lq, ids = (self.sidecar.tensor(name) for name in ("z_t", "z_lq", "img_ids"))
        return self.adapter()(z_t, z_lq, *self.inputs(), ids)

    def velocity(self, adapter: FluxAdapter | None) -> Tensor:
        lq = () if adapter is None else (self.sidecar.tensor("z_lq"),)
        with controlled(self.flux, adapter) as network:
            return network(self.sidecar.tensor("z_t"), *self.inputs(), *lq, image_ids=self.sidecar.tensor("img_ids"))


def is_step(sidecar: Sidecar) -> bool:
    return sidecar.content.get("method") == "FluxIR" and "transformer_config" in sidecar.content


@torch.no_grad()
def check_step(sidecar: Sidecar) -> Iterator[Check]:
    networks = Networks(sidecar)
    adapter, features = networks.adapter(), networks.features()
    computed = {
        "f_z": features.image,
        "f_p": features.text,
        "v_p": networks.velocity(adapter),
        "v_p.before": networks.velocity(networks.adapter("before")),
        "v_p.uncontrolled": networks.velocity(None),
        "img_ids": image_positions(*sidecar.content["latent_hw"]),
        **{f"z_c.{index}": layer(features.image) for index, layer in enumerate(adapter.se_z)},
        **{f"p_c.{index}": layer(features.text) for index, layer in enumerate(adapter.se_p)},
    }
    if "trajectory" in sidecar.names:
        computed["trajectory"] = trajectory(networks)
    for name in sidecar.names:
        if name in computed:
            yield sidecar.compare("step", name, computed[name])
        elif name not in INPUTS and not OTHERS.match(name):
            yield sidecar.failed("step", name, "no check knows this tensor")


def trajectory(networks: Networks) -> Tensor:
    """[steps + 1, B, L, C]: packed, from z_1 by the given sigmas."""
    sidecar, size = networks.sidecar, networks.sidecar.content["latent_hw"]
    start, degraded = (unpack_latent(sidecar.tensor(name), *size) for name in ("z_1", "z_lq"))
    prompt = PromptEmbedding(sidecar.tensor("prompt_t5"), sidecar.tensor("prompt_clip"))
    options = Options(guidance=float(sidecar.content["guidance"]))
    with controlled(networks.flux, networks.adapter()) as network:
        states = list(sample(network, start, degraded, prompt, sidecar.tensor("sigmas"), options))
    return torch.stack([pack_latent(state) for state in (start, *states)])


def is_training(sidecar: Sidecar) -> bool:
    return is_step(sidecar) and any(TRAINED.match(name) for name in sidecar.names)


def check_training(sidecar: Sidecar) -> Iterator[Check]:
    """The losses by the training stage's own functions, and the gradients of their sum (10) by its injection and form of (9)."""
    told, networks = sidecar.content, Networks(sidecar)
    adapter = networks.adapter(told.get("injection", "after"))
    model, vae = SteeredFlux(networks.flux.requires_grad_(False), adapter), networks.autoencoder()
    computed = {name: losses(networks, model, vae, form)["pixel"] for name, form in PIXEL_LOSSES.items() if name in sidecar.names}
    parts = losses(networks, model, vae, told.get("pixel_form", "noisy"))
    total = parts["velocity"] + float(told["alpha"]) * parts["pixel"]
    total.backward()
    computed |= {"loss.mse": parts["velocity"], "loss.total": total}
    computed |= {f"grad.{name}": parameter.grad for name, parameter in adapter.named_parameters() if parameter.grad is not None}
    if "sampler.u" in sidecar.names:
        computed["sampler.t"] = clamped_times(sidecar.tensor("sampler.u"))
    for name in sidecar.names:
        if name in computed:
            yield sidecar.compare("training", name, computed[name].detach())
        elif TRAINED.match(name) and name != "sampler.u":
            yield sidecar.failed("training", name, "no check knows this tensor")


def losses(networks: Networks, model: SteeredFlux, vae: Autoencoder, form: PixelForm) -> dict[str, Tensor]:
    """`velocity` and `pixel`."""
    sidecar = networks.sidecar
    latents = (unpack_latent(sidecar.tensor(name), *sidecar.content["latent_hw"]) for name in ("z_0", "z_1", "z_lq"))
    drawn = Drawn(*latents, sidecar.tensor("t"))
    prompt = PromptEmbedding(sidecar.tensor("prompt_t5"), sidecar.tensor("prompt_clip"))
    guidance = float(sidecar.content["guidance"])
    return steering_losses(model, drawn, prompt, guidance, lambda latent: as_pixels(vae.decode(latent)), form)


CASES = (Case("step", "inference", is_step, check_step), Case("training", "training", is_training, check_training))
