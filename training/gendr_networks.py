"""GenDR's networks in training: the generator with its projector, and the adapters that make two score networks of one base."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.diffusion import NoiseSchedule
from ..core.methods.gendr import GenDR, OneStepConstants, one_step
from ..core.weights import embedded
from ..core.weights.gendr import read_generator
from ..core.weights.lora import DOWN, UP
from ..core.weights.options import LoadOptions
from .adapters import Adapted, suffix_targets
from .features import features_of
from .representation import BLOCK, as_tokens

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# All of attention and feed-forward, the residual convolutions, the first and the last: 252 layers of Stable Diffusion 2.1.
SCORE_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "conv_in",
    "conv_out",
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a generator begins as. prompt: [1, N, D] of its own, or None for that of the base. border: as Generator has it."""

    unet: UNet2DConditionModel
    constants: OneStepConstants
    prompt: Tensor | None = None
    border: int = 0


def start_of_base(denoiser: Any, constants: OneStepConstants) -> Start:
    """The base's U-Net again, with weights of its own."""
    return Start(copy.deepcopy(denoiser), constants)


def start_of_file(place: str) -> Start:
    """The student of a file, or the embedded one, with its own constants and prompt. Raises WeightsError."""
    path = embedded.GENERATORS["gendr"] if place == "embedded" else Path(place)
    found = read_generator(path, LoadOptions(fold_constants=False))
    method = found.method
    assert isinstance(method, GenDR)
    return Start(method.unet, method.constants, method.prompt.clone(), found.border)


def constants_of_v(constants: OneStepConstants, schedule: NoiseSchedule) -> OneStepConstants:
    """Multipliers by which equation (2) takes a network's v for its noise: with eps = A v + B z_l, z_g = (z_l - beta eps) / alpha is
    (z_l - beta' v) / alpha'."""
    t = torch.tensor([constants.timestep])
    signal, noise = (float(values.cpu()) for values in (schedule.signal(t), schedule.noise(t)))
    kept = 1 - constants.beta * noise
    return OneStepConstants(constants.alpha / kept, constants.beta * signal / kept, constants.timestep)


class Restoring(nn.Module):
    """theta, and the projector that REPA trains along with it."""

    def __init__(self, unet: UNet2DConditionModel, constants: OneStepConstants, projector: nn.Sequential | None) -> None:
        super().__init__()
        self.unet, self.constants, self.projector = unet, constants, projector

    def forward(self, latent: Tensor, prompt: Tensor, represented: bool = False) -> tuple[Tensor, Tensor | None]:
        """z_g [B, C, h, w] from z_l by equation (2); and projected features [B, N, D] of that call, where they are asked for."""
        with features_of(self.unet, [BLOCK]) as found:
            restored = one_step(self.unet, latent, prompt, self.constants)
        return restored, self.projector(as_tokens(found[BLOCK])) if self.projector is not None and represented else None


def score_adapter(base: nn.Module, rank: int, alpha: float) -> Adapted:
    """The base as a trainable score network."""
    return Adapted(base, suffix_targets(base, SCORE_TARGETS), rank, alpha / rank)


def adapter_tensors(adapted: Adapted) -> dict[str, Tensor]:
    """`<layer>.lora_A.weight` and `<layer>.lora_B.weight` of an adapter."""
    return {f"{name}{part}": tensor for name, pair in adapted.factors().items() for part, tensor in zip((DOWN, UP), pair, strict=True)}
