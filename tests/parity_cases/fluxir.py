"""FluxIR: the adapter's features and controls, the velocity they lead to in both modes, and a trajectory (inference)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from kintsugi.core.methods.fluxir import Options, sample
from kintsugi.core.models.controlled_flux import controlled
from kintsugi.core.models.flux_adapter import Features, FluxAdapter, Injection
from kintsugi.core.models.flux_tokens import image_positions, pack_latent, unpack_latent
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.files import build_network
from parity_cases.sidecar import Case, Check, Sidecar
from torch import Tensor

INPUTS = ("z_0", "z_1", "z_lq", "t", "z_t", "prompt_t5", "prompt_clip", "img_ids", "txt_ids", "sigmas")
# Weights are inputs too; losses, gradients and the sampler of timesteps belong to training.
OTHERS = re.compile(r"w\.|loss\.|grad\.|sampler\.")


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


@torch.inference_mode()
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


CASES = (Case("step", "inference", is_step, check_step),)
