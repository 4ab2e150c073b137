"""What InstaRevive's stage is put together from: its networks as one call, the coarse restorer, and the files it reads and writes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.diffusion import NoiseSchedule
from ..core.imaging.padding import crop_around, pad_around, pad_to_multiple
from ..core.methods.gendr import GenDR
from ..core.methods.gendr import OneStepConstants as GendrConstants
from ..core.methods.instarevive import InstaRevive, OneStepConstants
from ..core.methods.pre_restore import PreRestorer
from ..core.models.prompt import PromptEmbedding
from ..core.models.swinir import SwinIR, SwinIRConfig
from ..core.weights import embedded, gendr, instarevive
from ..core.weights.configs import shipped_config
from ..core.weights.files import load_strictly, write_weights
from ..core.weights.locations import chosen_file
from ..core.weights.students import read_student
from ..core.weights.swinir import PUBLISHED, read_swinir
from .bases import Base, is_dry
from .denoisers import predict
from .latents import Autoencoder

# What a student's file calls itself, by the family of its prior. A U-Net's one step is GenDR's, z_0 = (z_l - s_t eps) / a_t, and so is
# its file.
KINDS = {instarevive.FAMILY: instarevive.KIND, gendr.FAMILY: gendr.KIND}
# The file that `auto` means.
STUDENTS = {instarevive.KIND: instarevive.PUBLISHED, gendr.KIND: gendr.PUBLISHED}


class NoisePredictor(nn.Module):
    """eps(z_t; t, c) of a prior's network in one forward call, which is what data-parallel wrappers need."""

    def __init__(self, family: str, network: nn.Module, concat_conv: nn.Conv2d | None = None) -> None:
        """concat_conv: what brings latent and noise to the latent's channels, for a generator that is given noise."""
        super().__init__()
        self.family, self.network, self.concat_conv = family, network, concat_conv

    def forward(self, z_t: Tensor, timesteps: Tensor, prompt: PromptEmbedding, noise: Tensor | None = None) -> Tensor:
        """[B, C, h, w] float32 of z_t and noise of that shape, timesteps [B], prompt tokens [B, N, D] and the mask as the network takes
        it."""
        dtype = next(self.network.parameters()).dtype
        seen = z_t if self.concat_conv is None or noise is None else self.concat_conv(torch.cat([z_t, noise], dim=1))
        told = PromptEmbedding(prompt.tokens.to(dtype), mask=None if prompt.mask is None else prompt.mask.to(dtype))
        return predict(self.family, self.network, seen.to(dtype), timesteps, told).float()


class CoarseRestorer(nn.Module):
    """SwinIR before the encoder, as inference has it."""

    def __init__(self, restorer: PreRestorer) -> None:
        super().__init__()
        self.network, self.border = restorer.network, restorer.border

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Coarse restorations of pictures, both [B, 3, H, W] in 0..1."""
        height, width = pictures.shape[-2:]
        grown = pad_to_multiple(pad_around(pictures, self.border), self.network.config.multiple)
        found = self.network(grown.to(next(self.network.parameters()).dtype)).float()
        return crop_around(found[..., : height + 2 * self.border, : width + 2 * self.border], self.border).clamp(0, 1)


def coarse_restorer(weights: str) -> CoarseRestorer:
    """weights: a file, or a name as in Pre-Restore; in a dry run the published size without weights. Raises WeightsError."""
    if is_dry():
        return CoarseRestorer(PreRestorer(SwinIR(SwinIRConfig(**shipped_config("swinir")))))
    own = Path(weights)
    return CoarseRestorer(read_swinir(own if own.is_file() else chosen_file("the pre-restorer", weights, PUBLISHED, embedded.SWINIR)))


def start_from(generator: NoisePredictor, student: str) -> None:
    """Give the generator the weights of a student: a file of ours or as published, or a name as in Load One-Step Generator. In a dry run
    nothing is read.

    A convolution for noise that the file does not have stays as it is. Raises WeightsError.
    """
    if is_dry():
        return
    kind, own = KINDS[generator.family], Path(student)
    file = read_student(own if own.is_file() else chosen_file(kind, student, STUDENTS[kind], embedded.GENERATORS[kind]), kind)
    tensors = {
        name.removeprefix("transformer.").removeprefix("unet."): tensor.float()
        for name, tensor in file.tensors.items()
        if name not in ("prompt", "prompt_mask")
    }
    if generator.concat_conv is not None:
        entering = [name for name in tensors if name.startswith(instarevive.CONVOLUTION)]
        convolving = {name.removeprefix(instarevive.CONVOLUTION): tensors.pop(name) for name in entering}
        load_strictly(generator.concat_conv, convolving or generator.concat_conv.state_dict(), file.where)
    load_strictly(generator.network, tensors, file.where)


def student_of(generator: NoisePredictor, prompt: PromptEmbedding, constants: OneStepConstants, schedule: NoiseSchedule) -> nn.Module:
    """The method as inference has it, of the generator's own networks; its tensors are those of a student's file."""
    network: Any = generator.network
    if generator.family == instarevive.FAMILY:
        return InstaRevive(network, prompt, constants, generator.concat_conv)
    return GenDR(network, prompt.tokens, gendr_constants(constants.timestep, schedule))


def gendr_constants(timestep: int, schedule: NoiseSchedule) -> GendrConstants:
    """GenDR's (z_l - beta eps) / alpha at that timestep."""
    t = torch.tensor([timestep])
    return GendrConstants(alpha=float(schedule.signal(t)), beta=float(schedule.noise(t)), timestep=timestep)


def write_student(path: Path, student: nn.Module, base: Base, vae: str, border: int) -> None:
    """The whole student, as the nodes load it. vae: `embedded`, or the name of a file beside it."""
    method: Any = student
    config = {"kind": KINDS[base.name], base.family.component: base.config, "one_step": asdict(method.constants), "border": border}
    write_weights(path, dict(student.state_dict()), {**config, "vae": vae})


def write_vae(path: Path, vae: Autoencoder) -> None:
    """The prior's VAE for a student whose file lies beside it."""
    config = {name: value for name, value in vae.vae.config.items() if not name.startswith("_")}
    write_weights(path, dict(vae.vae.state_dict()), {"kind": "vae", "vae": config}, dtype=None)
