"""TSD-SR: the published path from picture to picture, its tiles, its tiled VAE, its colour fix and its schedule (inference); one
iteration with its gradients (training)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import torch
from kintsugi.core.diffusion import flow_schedule, shifted_sigmas
from kintsugi.core.imaging.color_fix import adain_fix, low_frequencies, wavelet_fix
from kintsugi.core.methods.tsd_sr import TsdSr
from kintsugi.core.methods.tsd_sr_release import (
    ReleaseSettings,
    network_input,
    restore_as_released,
    tile_starts,
    tiled_velocity,
    to_8_bit,
    window,
    working_size,
)
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.models.tiled_vae_published import Box, decode_published, encode_published, plan_decode, plan_encode
from kintsugi.training.losses import latent_mse, with_gradient
from kintsugi.training.tsd_sr_losses import (
    TrajectoryPoint,
    auxiliary_loss,
    auxiliary_weighting,
    follow_trajectory,
    point_weights,
    trajectory_indices,
    tsd_direction,
    tsm_direction,
    vsd_direction,
)
from kintsugi.training.tsd_sr_networks import PUBLISHED_PREFIX, STEPS, Guidance, published_factors, sd3_velocity
from parity_cases.networks.tsd_sr import TrainingNetworks, codec_of, latent_offset, method_of, stored
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar
from torch import Tensor

Computed = dict[str, Tensor]


def report(sidecar: Sidecar, case: str, inputs: Iterable[str], computed: Computed) -> Iterator[Check]:
    """A check for every tensor of the sidecar that is no input."""
    for name in sidecar.names:
        if name in computed:
            yield sidecar.compare(case, name, computed[name])
        elif name not in inputs:
            yield sidecar.failed(case, name, "no check knows this tensor")


def settings_of(sidecar: Sidecar, **changes: Any) -> ReleaseSettings:
    config = sidecar.config
    numbers = config["upscale"], config["process_size"], config["latent_tiled_size"], config["latent_tiled_overlap"]
    return ReleaseSettings(*numbers, **changes)


# --- from picture to picture


def is_path(sidecar: Sidecar) -> bool:
    return {"lq", "vae_noise", "model_pred"} <= set(sidecar.names)


@torch.inference_mode()
def check_path(sidecar: Sidecar) -> Iterator[Check]:
    method, codec, settings = method_of(sidecar), codec_of(sidecar), settings_of(sidecar)
    source, noise, offset = sidecar.tensor("lq"), sidecar.tensor("vae_noise"), latent_offset(sidecar)
    height, width, _ = working_size(*source.shape[:2], settings)
    picture = network_input(source, height, width)
    mean, log_variance = moments(codec, 2 * picture - 1).chunk(2, dim=1)
    latent = codec.encode(picture, noise)
    velocity = tiled_velocity(method, latent, settings.latent_tile, settings.latent_overlap)
    outputs = {f"out_{fix}": settings_of(sidecar, color_fix=fix) for fix in ("nofix", "wavelet", "adain")}
    computed = {
        "main_size": torch.tensor([height, width]),
        "pixel_values": 2 * picture - 1,
        "latent_mean": mean,
        "latent_logvar": log_variance.clamp(-30, 20),
        "model_input": latent + offset,
        "model_pred": velocity,
        "model_pred_untiled": method.velocity(latent),
        "latent_student": latent + offset - velocity,
        "image": (2 * codec.decode(latent - velocity) - 1)[0].clamp(-1, 1),
        **{name: restore_as_released(method, codec, source, noise, chosen) for name, chosen in outputs.items() if name in sidecar.names},
        **tiled_case(sidecar, latent, settings),
        **narrow_case(sidecar, method),
    }
    yield from report(sidecar, "path", ("lq", "vae_noise", "narrow_input"), computed)


def tiled_case(sidecar: Sidecar, latent: Tensor, settings: ReleaseSettings) -> Computed:
    if "tile_weights" not in sidecar.names:
        return {}
    return tiling_of("", *latent.shape[-2:], settings.latent_tile, settings.latent_overlap)


def narrow_case(sidecar: Sidecar, method: TsdSr) -> Computed:
    """A latent whose shorter side is below the tile."""
    if "narrow_input" not in sidecar.names:
        return {}
    latent = sidecar.tensor("narrow_input")
    tile, overlap = (sidecar.config["narrow"][name] for name in ("latent_tiled_size", "latent_tiled_overlap"))
    predicted = tiled_velocity(method, latent - latent_offset(sidecar), tile, overlap)
    return {"narrow_pred": predicted, **tiling_of("narrow_", *latent.shape[-2:], tile, overlap)}


def tiling_of(prefix: str, height: int, width: int, tile: int, overlap: int) -> Computed:
    size = min(tile, height, width)
    return {
        f"{prefix}tile_weights": window(size),
        f"{prefix}tile_x": torch.tensor(tile_starts(width, size, overlap)),
        f"{prefix}tile_y": torch.tensor(tile_starts(height, size, overlap)),
    }


def moments(codec: LatentCodec, pixels: Tensor) -> Tensor:
    return codec.vae.encode(pixels).latent_dist.parameters


# --- the tiled VAE


def is_tiled_encode(sidecar: Sidecar) -> bool:
    return "moments_tiled" in sidecar.names


@torch.inference_mode()
def check_tiled_encode(sidecar: Sidecar) -> Iterator[Check]:
    codec, pixels, tile = codec_of(sidecar), sidecar.tensor("image"), sidecar.config["encoder_tile_size"]
    plan = plan_encode(*pixels.shape[-2:], tile, codec.downscale)
    computed = {
        "moments_tiled": encode_published(codec.vae, pixels, tile),
        "moments_untiled": moments(codec, pixels),
        "in_boxes": boxes(plan.in_boxes),
        "out_boxes": boxes(plan.out_boxes),
    }
    yield from report(sidecar, "tiled encode", ("image",), computed)


def is_tiled_decode(sidecar: Sidecar) -> bool:
    return "image_tiled" in sidecar.names


@torch.inference_mode()
def check_tiled_decode(sidecar: Sidecar) -> Iterator[Check]:
    codec, latent, tile = codec_of(sidecar), sidecar.tensor("latent"), sidecar.config["decoder_tile_size"]
    plan = plan_decode(*latent.shape[-2:], tile, codec.downscale)
    computed = {
        "image_tiled": decode_published(codec.vae, latent, tile),
        "in_boxes": boxes(plan.in_boxes),
        "out_boxes": boxes(plan.out_boxes),
    }
    yield from report(sidecar, "tiled decode", ("latent",), computed)


def boxes(plan: list[Box]) -> Tensor:
    return torch.tensor([astuple(box) for box in plan])


# --- colours and schedule


def is_color_fix(sidecar: Sidecar) -> bool:
    return "wavelet_float" in sidecar.names


def check_color_fix(sidecar: Sidecar) -> Iterator[Check]:
    inputs = ("target", "source", "source_small")
    target, source, small = (sidecar.tensor(name).permute(2, 0, 1)[None].float() / 255 for name in inputs)
    wavelet, adain, low = wavelet_fix(target, source), adain_fix(target, small), low_frequencies(target)
    computed = {
        "wavelet_float": wavelet,
        "wavelet_high": target - low,
        "wavelet_low": low,
        "adain_float": adain,
        "wavelet_uint8": to_8_bit(wavelet),
        "adain_uint8": to_8_bit(adain),
    }
    yield from report(sidecar, "colour fix", inputs, computed)


def is_schedule(sidecar: Sidecar) -> bool:
    return set(sidecar.names) == {"timesteps", "sigmas"}


def check_schedule(sidecar: Sidecar) -> Iterator[Check]:
    config = sidecar.config["scheduler"]
    sigmas = shifted_sigmas(config["num_train_timesteps"], config["shift"])
    yield from report(sidecar, "schedule", (), {"sigmas": sigmas, "timesteps": sigmas * config["num_train_timesteps"]})


# --- one iteration of training, with every random number given


@dataclass(frozen=True)
class Iteration:
    """A step of the student and one of the auxiliary network, with the graphs that their gradients need. Latents are the release's,
    which are not shifted."""

    sidecar: Sidecar

    @cached_property
    def networks(self) -> TrainingNetworks:
        return TrainingNetworks(self.sidecar)

    @cached_property
    def sigmas(self) -> Tensor:
        config = self.sidecar.config["scheduler"]
        return shifted_sigmas(config["num_train_timesteps"], config["shift"])

    @cached_property
    def latent(self) -> Tensor:
        """z^ as the release has it, not shifted, with its graph."""
        return self.networks.student(self.sidecar.tensor("lr") / 2 + 0.5, self.sidecar.tensor("vae_noise")) + latent_offset(self.sidecar)

    @cached_property
    def places(self) -> Tensor:
        """The first sample's trajectory, which the release takes for all."""
        config = self.sidecar.config
        first, bias = self.sidecar.tensor("noised_index")[:1], config["random_bias"] or 0
        return trajectory_indices(first, config["N"], config["s"], len(self.sigmas) - 1, bias)

    @cached_property
    def prompt(self) -> PromptEmbedding:
        return self.embedding("batch")

    def embedding(self, kind: str) -> PromptEmbedding:
        """A row for every sample."""
        prompts, rows = stored(self.sidecar, "prompts"), len(self.sidecar.tensor("noised_index"))
        tokens, pooled = (prompts[f"{kind}_{part}_embeds"][:rows] for part in ("prompt", "pool"))
        return PromptEmbedding(tokens.expand(rows, -1, -1), pooled.expand(rows, -1))

    @cached_property
    def points(self) -> list[TrajectoryPoint]:
        own = self.sigmas[self.sidecar.tensor("noised_index")]
        student, clean = (self.noised(latent, "noise", own) for latent in (self.latent.detach(), self.sidecar.tensor("latent_hr")))
        guidance = Guidance(self.prompt, self.embedding("null"), self.sidecar.config["guidance_scale"])
        sigmas = self.sigmas[self.places].expand(len(own), -1)
        return follow_trajectory(student, clean, sigmas, guidance.of(self.networks.teacher), guidance.of(self.networks.auxiliary))

    def noised(self, latent: Tensor, noise: str, sigma: Tensor) -> Tensor:
        return flow_schedule().add_noise(latent, self.sidecar.tensor(noise), STEPS * sigma)

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor, Tensor]:
        """VSD, TSM, TSD."""
        weights = point_weights(self.points, self.sidecar.config["step_weights"])
        vsd, tsm = vsd_direction(self.points, weights), tsm_direction(self.points, weights)
        return vsd, tsm, tsd_direction(vsd, tsm, self.sidecar.config["lambda_tsd"])

    @cached_property
    def distillation(self) -> Tensor:
        return with_gradient(self.latent, self.directions[2])

    @cached_property
    def regression(self) -> Tensor:
        return latent_mse(self.latent, self.sidecar.tensor("latent_hr"))

    @cached_property
    def auxiliary_step(self) -> Computed:
        """The release's one weight for a batch is the mean of those of its samples."""
        student, sigma = self.latent.detach(), self.sigmas[self.sidecar.tensor("idx_lora")]
        noisy = self.noised(student, "noise_lora", sigma)
        velocity = sd3_velocity(self.networks.auxiliary, noisy, sigma, self.prompt)
        clean = flow_schedule().clean(noisy, velocity, STEPS * sigma, "velocity")
        weighting = auxiliary_weighting("logit-normal", self.sidecar.tensor("u"), sigma)
        loss = auxiliary_loss(clean, student, weighting.mean().expand(len(sigma)))
        return {
            "lora_noisy": noisy,
            "lora_sigma": sigma[:, None, None, None],
            "lora_x0_pred": clean,
            "lora_weighting": weighting,
            "lora_loss": loss[None],
        }


def is_iteration(sidecar: Sidecar) -> bool:
    return {"z_hat", "grad_tsd", "lora_loss"} <= set(sidecar.names)


def check_iteration(sidecar: Sidecar) -> Iterator[Check]:
    iteration = Iteration(sidecar)
    picture, noise = sidecar.tensor("lr") / 2 + 0.5, sidecar.tensor("vae_noise")
    seen = iteration.networks.student.encoder(picture, noise) + latent_offset(sidecar)
    vsd, tsm, tsd = iteration.directions
    (gradient,) = torch.autograd.grad(iteration.distillation, iteration.latent, retain_graph=True)
    computed = {
        "model_input": seen,
        "model_pred": seen - iteration.latent,
        "z_hat": iteration.latent,
        "image_student": iteration.networks.autoencoder.decode(iteration.latent - latent_offset(sidecar)).clamp(0, 1),
        "grad_vsd": vsd,
        "grad_tsm": tsm,
        "grad_tsd": tsd,
        "tsd_loss": iteration.distillation[None],
        "mse_loss": iteration.regression[None],
        "loss_g": (iteration.regression + iteration.distillation)[None],
        "dasm_indices": iteration.places[0],
        "dtsd_dzhat": gradient,
        **iteration.auxiliary_step,
        **points_of(iteration),
    }
    inputs = ("lr", "hr", "latent_hr", "vae_noise", "noise", "noise_lora", "u", "idx_lora", "noised_index")
    detached = {name: tensor.detach() for name, tensor in computed.items()}
    yield from report(sidecar, "iteration", inputs, detached)


def points_of(iteration: Iteration) -> Computed:
    """Every quantity of every point of the trajectory."""
    found: Computed = {}
    sigmas = iteration.sigmas[iteration.places[0]]
    for index, point in enumerate(iteration.points):
        of_point = {
            "noisy_input": point.student,
            "noisy_hr": point.clean,
            "model_pred_tea": point.teacher,
            "model_pred_tea_hr": point.teacher_clean,
            "model_pred_reg": point.auxiliary,
            "sigmas_current": point.sigma[:, None, None, None],
            "sigmas_next": sigmas[index + 1].expand(len(point.sigma))[:, None, None, None],
            "current_step": STEPS * point.sigma,
        }
        found |= {f"step{index}.{name}": tensor for name, tensor in of_point.items()}
    return found


def is_gradients(sidecar: Sidecar) -> bool:
    return any(name.startswith("grad.") for name in sidecar.names)


def check_gradients(sidecar: Sidecar) -> Iterator[Check]:
    """Of the iteration that the file is named after; `_released` marks those of the released loop, in which the distillation has none."""
    name = sidecar.path.stem.removesuffix("_released").removesuffix("_grads")
    described = Sidecar.read(sidecar.path.with_name(f"{name}.json"))
    if described is None:
        raise BadRequestError(f"{sidecar.path}: {name}.json, whose gradients these are, describes no tensors")
    iteration = Iteration(described)
    is_released = sidecar.path.stem.endswith("_released")
    (iteration.regression if is_released else iteration.regression + iteration.distillation).backward()
    iteration.auxiliary_step["lora_loss"].backward()
    networks = {**iteration.networks.student.published(), "reg": published_factors(iteration.networks.auxiliary)}
    computed = {
        gradient_name(part, factor): tensor.grad
        for part, factors in networks.items()
        for factor, tensor in factors.items()
        if tensor.grad is not None
    }
    yield from report(sidecar, "gradients", (), computed)


def gradient_name(part: str, factor: str) -> str:
    """As peft calls the parameter: transformer.<layer>.lora_A.weight is grad.<part>.<layer>.lora_A.<adapter>.weight."""
    layer = factor.removeprefix(PUBLISHED_PREFIX).removesuffix("weight")
    return f"grad.{part}.{layer}{'reg' if part == 'reg' else 'default'}.weight"


CASES = (
    Case("path", "inference", is_path, check_path),
    Case("tiled encode", "inference", is_tiled_encode, check_tiled_encode),
    Case("tiled decode", "inference", is_tiled_decode, check_tiled_decode),
    Case("colour fix", "inference", is_color_fix, check_color_fix),
    Case("schedule", "inference", is_schedule, check_schedule),
    Case("iteration", "training", is_iteration, check_iteration),
    Case("gradients", "training", is_gradients, check_gradients),
)
