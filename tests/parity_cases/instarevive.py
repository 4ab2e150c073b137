"""InstaRevive: its one step in both mask modes, the coarse restorer before it, colour fix and windows after it (inference); dynamic
control, gradients and losses (training)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from kintsugi.core.diffusion import NoiseSchedule, ddpm_schedule, linear_betas, scaled_linear_betas
from kintsugi.core.imaging.color_fix import adain_fix, wavelet_fix
from kintsugi.core.methods.instarevive import InstaRevive, MaskMode, OneStepConstants, release_tiles
from kintsugi.core.models.mini import build_pixart
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import run_model
from kintsugi.core.weights.files import NetworkFile, build_network
from kintsugi.core.weights.swinir import swinir_of
from kintsugi.training.dynamic_control import distance, draw_timesteps, largest_timestep, lowest_timestep, noise_levels, regression_share
from kintsugi.training.losses import (
    dsm_gradient,
    dynamic_losses,
    guided,
    normalised_gradient,
    score_gradient,
    square_loss,
    with_gradient,
    with_summed_gradient,
)
from parity_cases.sidecar import BadRequestError, Case, Check, Sidecar, relative_error
from torch import Tensor

OUTPUT = re.compile(r"(?P<case>.+)\.(?P<kind>eps|x0)\.(?P<mask>mask[23]d)")
BETAS = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}
MASKS: dict[str, MaskMode] = {"mask3d": "bias", "mask2d": "keep"}


def is_step(sidecar: Sidecar) -> bool:
    return "transformer_config" in sidecar.content and any(OUTPUT.fullmatch(name) for name in sidecar.names)


def is_swinir(sidecar: Sidecar) -> bool:
    return "swinir_config" in sidecar.content


def is_color_fix(sidecar: Sidecar) -> bool:
    return str(sidecar.content.get("method")).startswith("InstaRevive") and {"content", "style"} <= set(sidecar.names)


def is_tiles(sidecar: Sidecar) -> bool:
    return any("coords_hi_hend_wi_wend" in entry for entry in sidecar.content.get("tiles", []))


def is_dynamic_control(sidecar: Sidecar) -> bool:
    return "kappa" in sidecar.content and "rows" in sidecar.content and "x_hq" in sidecar.names


def weights(sidecar: Sidecar, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in sidecar.tensors.items() if name.startswith(prefix)}


def student(sidecar: Sidecar, mode: MaskMode) -> InstaRevive:
    config: dict[str, Any] = sidecar.content["transformer_config"]
    transformer = build_network(lambda: build_pixart(config), weights(sidecar, "w.transformer."), str(sidecar.path))
    prompt = PromptEmbedding(sidecar.tensor("prompt_embeds"), mask=sidecar.tensor("prompt_mask"))
    return InstaRevive(transformer, prompt, OneStepConstants(int(sidecar.content["timestep"]), mode)).eval()


@torch.inference_mode()
def check_step(sidecar: Sidecar) -> Iterator[Check]:
    methods = {mask: student(sidecar, mode) for mask, mode in MASKS.items()}
    for name in sidecar.names:
        found = OUTPUT.fullmatch(name)
        if found:
            method, latent = methods[found["mask"]], sidecar.tensor(f"{found['case']}.latent")
            timesteps = torch.full((latent.shape[0],), method.constants.timestep)
            computed = method.restore_latent(latent, None) if found["kind"] == "x0" else method.predict_noise(latent, None, timesteps)
            yield sidecar.compare("one step", name, computed)
    if "alphas_cumprod" in sidecar.names:
        timesteps = torch.arange(len(sidecar.tensor("alphas_cumprod")))
        yield sidecar.compare("one step", "alphas_cumprod", methods["mask3d"].schedule.signal(timesteps) ** 2)


@torch.inference_mode()
def check_swinir(sidecar: Sidecar) -> Iterator[Check]:
    network = swinir_of(NetworkFile(weights(sidecar, "w.swinir."), sidecar.content["swinir_config"], str(sidecar.path)))
    yield sidecar.compare("coarse restorer", "output", run_model(network, sidecar.tensor("input")))


def check_color_fix(sidecar: Sidecar) -> Iterator[Check]:
    for name, fix in (("wavelet", wavelet_fix), ("adain", adain_fix)):
        if name in sidecar.names:
            yield sidecar.compare("colour fix", name, fix(sidecar.tensor("content"), sidecar.tensor("style")))


def check_tiles(sidecar: Sidecar) -> Iterator[Check]:
    for entry in sidecar.content["tiles"]:
        height, width = entry["h"], entry["w"]
        tiles = release_tiles(height, width, entry["tile"], entry["stride"])
        found = [[tile.top, tile.top + tile.height, tile.left, tile.left + tile.width] for tile in tiles]
        same = found == entry["coords_hi_hend_wi_wend"]
        name = f"tiles of {height} x {width}"
        yield Check("windows", sidecar.path.name, name, 0.0 if same else float("inf"), 0.0, same, "" if same else f"found {found}")


def schedule_of(sidecar: Sidecar) -> NoiseSchedule:
    betas = BETAS.get(sidecar.content["schedule"])
    if betas is None:
        raise BadRequestError(f"{sidecar.path}: the schedule is {sidecar.content['schedule']!r}, expected one of {', '.join(BETAS)}")
    return ddpm_schedule(betas(steps=sidecar.content["T"], dtype=torch.float64))


def check_control(sidecar: Sidecar) -> Iterator[Check]:
    """d, T_max, its range, alpha and t of every row and both distances; the schedule's tables."""
    schedule, steps = schedule_of(sidecar), int(sidecar.content["T"])
    for name, table in (("alpha", schedule.signal), ("sigma", schedule.noise)):
        yield sidecar.compare("dynamic control", name, table(torch.arange(steps)))
    for index, row in enumerate(sidecar.content["rows"]):
        for mode in ("literal", "rms"):
            d = distance(sidecar.tensor(f"x.{index}"), sidecar.tensor("x_hq"), mode)
            reach = sidecar.content["kappa"] * d
            t_max = largest_timestep(noise_levels(schedule, steps), reach)
            t = draw_timesteps(sidecar.tensor("u")[index], t_max)
            computed = {
                "d": d, "kappa_d": reach, "T_max": t_max, "t_lo": lowest_timestep(t_max), "t_hi": t_max,
                "alpha_mix": regression_share(t_max, steps), "t": t,
            }  # fmt: skip
            for name, value in computed.items():
                yield number_check(sidecar, f"rows[{index}].{mode}.{name}", value, row[mode][name])


def number_check(sidecar: Sidecar, name: str, computed: Tensor, number: float | int | list[int]) -> Check:
    """As Sidecar.compare(), for numbers that stand in the sidecar itself."""
    reference = torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)
    limit = sidecar.limit if reference.is_floating_point() else 0.0
    same = computed.shape == reference.shape
    error = relative_error(computed, reference) if same else float("inf")
    return Check("dynamic control", sidecar.path.name, name, error, limit, error <= limit)


def check_gradients(sidecar: Sidecar) -> Iterator[Check]:
    """x_t, clean predictions, gradients and losses of the row they belong to, in double precision from the stored inputs."""
    schedule, steps, row = schedule_of(sidecar), int(sidecar.content["T"]), int(sidecar.content["gradient_row"])
    x, target, noise, fake = (sidecar.tensor(name).double() for name in (f"x.{row}", "x_hq", "noise", "eps_fake"))
    real = guided(sidecar.tensor("eps_real.null").double(), sidecar.tensor("eps_real.cond").double(), sidecar.content["guidance"])
    t_max = largest_timestep(noise_levels(schedule, steps), sidecar.content["kappa"] * distance(x, target))
    t = draw_timesteps(sidecar.tensor("u")[row], t_max)
    x_t = schedule.add_noise(x, noise, t)
    clean_real, clean_fake = (schedule.clean(x_t, eps, t, "epsilon") for eps in (real, fake))
    gradient = normalised_gradient(x, clean_real, clean_fake)
    output = x.clone().requires_grad_()
    (summed,) = torch.autograd.grad(with_summed_gradient(output, gradient), output)
    regression, surrogate = square_loss(x, target), with_gradient(x, gradient)
    parts = dynamic_losses({"mse": regression}, surrogate, regression_share(t_max, steps))
    computed = {
        "t.used": t, "eps_real.cfg": real, "x_t": x_t, "x0_real": clean_real, "x0_fake": clean_fake,
        "grad.eq5": dsm_gradient(real, fake, schedule.noise(t)), "grad.score": score_gradient(real, fake, schedule.noise(t)),
        "grad.normalised": gradient, "grad.surrogate_sum_over_B": summed, "loss.reg_mse": regression,
        "loss.dsm_surrogate_mean": surrogate, "loss.total": parts["mse"] + sidecar.content["kl_weight"] * parts["score"],
    }  # fmt: skip
    for name, value in computed.items():
        yield sidecar.compare("dynamic score matching", name, value)


CASES = (
    Case("one step", "inference", is_step, check_step),
    Case("coarse restorer", "inference", is_swinir, check_swinir),
    Case("colour fix", "inference", is_color_fix, check_color_fix),
    Case("windows", "inference", is_tiles, check_tiles),
    Case("dynamic control", "training", is_dynamic_control, check_control),
    Case("dynamic score matching", "training", is_dynamic_control, check_gradients),
)
