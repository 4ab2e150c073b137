"""GenDR: the one-step call in its readings of alpha and beta (inference), and one step of CiDA with its parts (training)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from kintsugi.core.diffusion import NoiseSchedule, ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods.gendr import GenDR, OneStepConstants
from kintsugi.core.models.mini import build_unet
from kintsugi.core.weights.files import build_network, load_strictly
from kintsugi.training import losses
from kintsugi.training.features import features_of
from kintsugi.training.gendr_scores import Scores
from kintsugi.training.patch_heads import PatchHead
from kintsugi.training.representation import as_tokens, projector
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
# Weights and what a step is given; z_h is the target.
INPUTS = re.compile(r"w\..+|z_[lh]|t|noise_[gh]|(null_)?prompt|dino_tokens")


def is_step(sidecar: Sidecar) -> bool:
    return sidecar.content.get("method") == "GenDR" and "z_g.literal" in sidecar.names


def is_training_step(sidecar: Sidecar) -> bool:
    return sidecar.content.get("method") == "GenDR" and "eps_phi.cond" in sidecar.names


def number_in(sidecar: Sidecar, pattern: str, text: str) -> float:
    """The number that the pattern finds in a text of the sidecar."""
    found = re.search(pattern, text)
    if found is None:
        raise BadRequestError(f"{sidecar.path}: no number fits {pattern!r} in {text!r}")
    return float(found[1])


def readings(sidecar: Sidecar) -> dict[str, OneStepConstants]:
    """Multipliers of equation (2) by golden tensor: 0.5 each, their square roots, and the schedule's own at t_s."""
    timestep = int(sidecar.content["t_s"])
    signal, noise = (float(sidecar.tensor(name)[timestep]) for name in ("alpha_bar", "beta_bar"))
    return {
        "z_g.literal": OneStepConstants(0.5, 0.5, timestep),
        "z_g.variance_reading": OneStepConstants(0.5**0.5, 0.5**0.5, timestep),
        "z_g.schedule": OneStepConstants(signal, noise, timestep),
    }


def unet_of(sidecar: Sidecar, name: str) -> UNet2DConditionModel:
    prefix = f"w.{name}."
    weights = {key.removeprefix(prefix): tensor for key, tensor in sidecar.tensors.items() if key.startswith(prefix)}
    return build_network(lambda: build_unet(sidecar.content["unet_config"]), weights, f"{sidecar.path}: {prefix}")


def student(sidecar: Sidecar, constants: OneStepConstants) -> GenDR:
    return GenDR(unet_of(sidecar, "theta"), sidecar.tensor("prompt"), constants).eval()


def check_step(sidecar: Sidecar) -> Iterator[Check]:
    latent: Tensor = sidecar.tensor("z_l")
    for name, constants in readings(sidecar).items():
        method = student(sidecar, constants)
        yield sidecar.compare("one step", name, method.restore_latent(latent, None))


@dataclass(frozen=True)
class Step:
    """One step of CiDA from a sidecar's inputs and weights; each part is computed when it is asked for."""

    sidecar: Sidecar

    @cached_property
    def schedule(self) -> NoiseSchedule:
        told = self.sidecar.content["schedule"]
        ends = re.findall(rf"sqrt\({NUMBER}\)", told)
        if len(ends) < 2:
            raise BadRequestError(f"{self.sidecar.path}: schedule names no first and last beta")
        steps = int(number_in(self.sidecar, rf"{NUMBER} steps", told))
        return ddpm_schedule(scaled_linear_betas(float(ends[0]), float(ends[1]), steps))

    @cached_property
    def scores(self) -> Scores:
        positive, null = self.sidecar.tensor("prompt"), self.sidecar.tensor("null_prompt")
        return Scores(self.schedule, positive, null, float(self.sidecar.content["kappa"]))

    @cached_property
    def real(self) -> Any:
        return unet_of(self.sidecar, "phi")

    @cached_property
    def fake(self) -> Any:
        return unet_of(self.sidecar, "psi")

    @cached_property
    def head(self) -> PatchHead:
        names = {"0": "conv1", "1": "norm", "3": "conv2"}
        weights = {
            f"{names[index]}.{kind}": self.sidecar.tensor(f"w.head.{index}.{kind}") for index in names for kind in ("weight", "bias")
        }
        width, channels, *_ = weights["conv1.weight"].shape
        groups = int(number_in(self.sidecar, rf"GroupNorm\({NUMBER}\)", self.sidecar.content["meaning"]["disc.*"]))
        head = PatchHead(channels, width, groups)
        load_strictly(head, weights, f"{self.sidecar.path}: w.head.")
        return head

    @cached_property
    def projector(self) -> nn.Module:
        weights = {name.removeprefix("w.proj."): tensor for name, tensor in self.sidecar.tensors.items() if name.startswith("w.proj.")}
        width, channels = weights["0.weight"].shape
        network = projector(channels, width, len(weights["4.weight"]))
        load_strictly(network, weights, f"{self.sidecar.path}: w.proj.")
        return network

    @cached_property
    def t(self) -> Tensor:
        return self.sidecar.tensor("t")

    @cached_property
    def noise(self) -> Tensor:
        return self.sidecar.tensor("noise_g")

    @cached_property
    def clean(self) -> Tensor:
        return self.sidecar.tensor("z_h")

    @cached_property
    def restored(self) -> Tensor:
        """z_g, the leaf that gradients are taken by."""
        return self.sidecar.tensor("z_g.literal").clone().requires_grad_()

    @cached_property
    def noised(self) -> Tensor:
        return self.schedule.add_noise(self.restored, self.noise, self.t)

    @cached_property
    def noised_clean(self) -> Tensor:
        return self.schedule.add_noise(self.clean, self.sidecar.tensor("noise_h"), self.t)

    def logits(self, noised: Tensor) -> Tensor:
        with features_of(self.real, ["mid_block"]) as found:
            self.scores.noise(self.real, noised, self.t)
        logits: Tensor = self.head(found["mid_block"])
        return logits

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, self.restored, retain_graph=True)[0]


def tables(step: Step) -> Iterator[tuple[str, Tensor]]:
    steps = torch.arange(len(step.sidecar.tensor("alpha_bar")))
    yield "alpha_bar", step.schedule.signal(steps)
    yield "beta_bar", step.schedule.noise(steps)
    yield "z_t", step.noised.detach()


def generator(step: Step) -> Iterator[tuple[str, Tensor]]:
    """The student's call in every reading, its features and what the projector makes of them."""
    latent = step.sidecar.tensor("z_l")
    for name, constants in readings(step.sidecar).items():
        method = student(step.sidecar, constants)
        with features_of(method.unet, ["down_blocks.0"]) as found:
            yield name, method(latent)
    yield "feature.down0", found["down_blocks.0"]
    t = torch.full((len(latent),), method.constants.timestep)
    yield "eps_theta", step.scores.noise(method.unet, latent, t)
    yield "repa.projected", step.projector(as_tokens(found["down_blocks.0"]))
    yield "loss.repa", losses.representation_loss(step.projector(as_tokens(found["down_blocks.0"])), step.sidecar.tensor("dino_tokens"))


def predictions(step: Step) -> Iterator[tuple[str, Tensor]]:
    unguided = Scores(step.schedule, step.scores.null, step.scores.null, 1.0)
    for name, network in (("phi", step.real), ("psi", step.fake)):
        yield f"eps_{name}.cond", step.scores.noise(network, step.noised, step.t)
        yield f"eps_{name}.null", unguided.noise(network, step.noised, step.t)
        yield f"f_{name}.kappa", step.scores.guided_clean(network, step.noised, step.t)


def in_noise(step: Step) -> Iterator[tuple[str, Tensor]]:
    """Equations 4 and 5."""
    real, fake = (step.scores.noise(network, step.noised, step.t) for network in (step.real, step.fake))
    yield "loss.L1_eps", losses.score_gap(real, fake)
    yield "loss.L2_eps", losses.score_identity(real, fake, step.noise)
    yield "grad.vsd_eps", losses.vsd_gradient(real, fake)


def in_latents(step: Step) -> Iterator[tuple[str, Tensor]]:
    """Equations 7 to 9."""
    real, fake = (step.scores.guided_clean(network, step.noised, step.t) for network in (step.real, step.fake))
    weight = losses.cid_weight(real, step.clean)
    found = {
        "L1": losses.score_gap(real, fake, weight),
        "L2": losses.score_identity(real, fake, step.restored, weight),
        "L3": losses.score_identity(real, fake, step.clean, weight),
        "cid": losses.cid_loss(real, fake, step.clean, float(step.sidecar.content["xi"])),
    }
    yield "w_t", weight.flatten()
    for name, loss in found.items():
        yield f"loss.{name}", loss
        yield f"grad.{name}", step.gradient(loss)
    yield "loss.psi", losses.score_loss(step.scores.clean(step.fake, step.noised.detach(), step.t), step.restored)
    yield "loss.phi", losses.score_loss(step.scores.clean(step.real, step.noised_clean, step.t), step.clean)


def adversarial(step: Step) -> Iterator[tuple[str, Tensor]]:
    fake, real = step.logits(step.noised), step.logits(step.noised_clean)
    yield "disc.logit_fake", fake
    yield "disc.logit_real", real
    loss = losses.adversarial_loss([fake])
    yield "loss.adv_G", loss
    yield "grad.adv", step.gradient(loss)
    yield "loss.adv_D", losses.discriminator_loss([fake], [real])


def total(step: Step, parts: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Equation 11, its weights told by the names and the meaning."""
    meaning = step.sidecar.content["meaning"]["loss.cida.*"]
    adversarial, representation = (number_in(step.sidecar, rf"{NUMBER} {name}", meaning) for name in ("adv_G", "repa"))
    for name in step.sidecar.names:
        if found := re.fullmatch(rf"loss\.cida\.lambda1_{NUMBER}", name):
            weighted = float(found[1]) * parts["loss.cid"] + adversarial * parts["loss.adv_G"]
            yield name, weighted + representation * parts["loss.repa"]


def check_training_step(sidecar: Sidecar) -> Iterator[Check]:
    step = Step(sidecar)
    found: dict[str, Tensor] = {}
    for part in (tables, generator, predictions, in_noise, in_latents, adversarial):
        found.update((name, value.detach()) for name, value in part(step))
    found.update(total(step, found))
    for name in sidecar.names:
        if name in found:
            yield sidecar.compare("cida step", name, found[name])
        elif not INPUTS.fullmatch(name):
            yield sidecar.failed("cida step", name, "no check knows this tensor")


CASES = (
    Case("one step", "inference", is_step, check_step),
    Case("cida step", "training", is_training_step, check_training_step),
)
