"""GenDR: the one-step call in its readings of alpha and beta (inference)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from kintsugi.core.methods.gendr import GenDR, OneStepConstants
from kintsugi.core.models.mini import build_unet
from kintsugi.core.weights.files import load_strictly
from parity_cases.sidecar import Case, Check, Sidecar
from torch import Tensor


def is_step(sidecar: Sidecar) -> bool:
    return sidecar.content.get("method") == "GenDR" and "z_g.literal" in sidecar.names


def readings(sidecar: Sidecar) -> dict[str, OneStepConstants]:
    """Multipliers of equation (2) by golden tensor: 0.5 each, their square roots, and the schedule's own at t_s."""
    timestep = int(sidecar.content["t_s"])
    signal, noise = (float(sidecar.tensor(name)[timestep]) for name in ("alpha_bar", "beta_bar"))
    return {
        "z_g.literal": OneStepConstants(0.5, 0.5, timestep),
        "z_g.variance_reading": OneStepConstants(0.5**0.5, 0.5**0.5, timestep),
        "z_g.schedule": OneStepConstants(signal, noise, timestep),
    }


def student(sidecar: Sidecar, constants: OneStepConstants) -> GenDR:
    config: dict[str, Any] = sidecar.content["unet_config"]
    unet = build_unet(config)
    weights = {name.removeprefix("w.theta."): tensor for name, tensor in sidecar.tensors.items() if name.startswith("w.theta.")}
    load_strictly(unet, weights, str(sidecar.path))
    return GenDR(unet, sidecar.tensor("prompt"), constants).eval()


@torch.inference_mode()
def check_step(sidecar: Sidecar) -> Iterator[Check]:
    latent: Tensor = sidecar.tensor("z_l")
    for name, constants in readings(sidecar).items():
        method = student(sidecar, constants)
        yield sidecar.compare("one step", name, method.restore_latent(latent, None))


CASES = (Case("one step", "inference", is_step, check_step),)
