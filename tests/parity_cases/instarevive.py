"""InstaRevive: its one step in both mask modes, the coarse restorer before it, colour fix and windows after it (inference)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from kintsugi.core.imaging.color_fix import adain_fix, wavelet_fix
from kintsugi.core.methods.instarevive import InstaRevive, MaskMode, OneStepConstants, release_tiles
from kintsugi.core.models.mini import build_pixart
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import run_model
from kintsugi.core.weights.files import NetworkFile, build_network
from kintsugi.core.weights.swinir import swinir_of
from parity_cases.sidecar import Case, Check, Sidecar

OUTPUT = re.compile(r"(?P<case>.+)\.(?P<kind>eps|x0)\.(?P<mask>mask[23]d)")
MASKS: dict[str, MaskMode] = {"mask3d": "bias", "mask2d": "keep"}


def is_step(sidecar: Sidecar) -> bool:
    return "transformer_config" in sidecar.content and any(OUTPUT.fullmatch(name) for name in sidecar.names)


def is_swinir(sidecar: Sidecar) -> bool:
    return "swinir_config" in sidecar.content


def is_color_fix(sidecar: Sidecar) -> bool:
    return str(sidecar.content.get("method")).startswith("InstaRevive") and {"content", "style"} <= set(sidecar.names)


def is_tiles(sidecar: Sidecar) -> bool:
    return any("coords_hi_hend_wi_wend" in entry for entry in sidecar.content.get("tiles", []))


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


CASES = (
    Case("one step", "inference", is_step, check_step),
    Case("coarse restorer", "inference", is_swinir, check_swinir),
    Case("colour fix", "inference", is_color_fix, check_color_fix),
    Case("windows", "inference", is_tiles, check_tiles),
)
