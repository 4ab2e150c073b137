"""The model card that is written beside what a run exports: how it was made, how well it does, and whose licence holds."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..core.weights.catalogue import find_release
from .recipe import Recipe
from .stages import stage_class

ROOT = Path(__file__).parent.parent
OWN_LICENCE = "Apache-2.0"
EMBEDDED = "embedded"
LICENCE = "- Licence: "
# Settings of stages that name published weights to begin with, the embedded ones, or none.
BEGINNINGS = ("base", "prior", "dcp", "encoder", "previewer", "start", "vae")
SD21 = "Stable Diffusion 2.1 (CreativeML Open RAIL++-M)"
# What a stage of full size begins with: releases of the catalogue, or a name with its licence for what is not in it.
FOUNDATIONS: dict[str, tuple[str, ...]] = {
    "instantir-dcp": ("sdxl", "dinov2-large"),
    "instantir-previewer": ("sdxl", "dinov2-large", "instantir"),
    "instantir-aggregator": ("sdxl", "dinov2-large", "instantir"),
    "tsd-sr": ("sd3-medium",),
    "tsd-sr-teacher": ("sd3-medium",),
    "gendr-base": (SD21, "vae-kl-f8-d16"),
    "gendr": (SD21, "vae-kl-f8-d16"),
    "instarevive": ("pixart-alpha", "sd-vae-ft-ema", "swinir"),
    "fluxir": ("flux-dev",),
}


@dataclass(frozen=True)
class Run:
    """What came of a run. seconds: spent on steps, by the clock. metrics: PSNR in dB by picture, mean over that many held-out crops."""

    steps: int
    seconds: float
    metrics: dict[str, float]
    crops: int
    processes: int
    device: torch.device


def model_card(recipe: Recipe, run: Run) -> str:
    """Markdown: steps, time, machine, code, data, licence, what held-out crops reached, and the recipe in full."""
    pictures = recipe.batch * recipe.accumulate * run.processes
    reached = "\n".join(f"| {name} | {value:.2f} |" for name, value in run.metrics.items())
    settings = yaml.safe_dump(without_folders(recipe.model_dump(mode="json")), sort_keys=False)
    facts = {
        "Made by": f"`kintsugi train`, stage `{recipe.stage}`, {run.steps} steps of {pictures} crops, {run.seconds / 60:.0f} minutes",
        "Machine": machine(run.device, run.processes),
        "Code": code_version(),
        "Data": data_in_words(recipe),
        "Licence": licence(recipe),
    }
    listed = "\n".join(f"- {name}: {text}." for name, text in facts.items())
    return (
        f"# {recipe.settings.get('name', recipe.stage)}\n\n{listed}\n\n"
        f"PSNR on {run.crops} held-out crops (dB):\n\n| picture | PSNR |\n|---|---|\n{reached}\n\n"
        f"Recipe:\n\n```yaml\n{settings}```\n"
    )


def data_in_words(recipe: Recipe) -> str:
    """Where the crops came from; paths stay on the machine."""
    data = recipe.data
    presets = [data.degradation] if isinstance(data.degradation, str) else [*(data.degradation or {})]
    spoilt = f"degraded by {', '.join(f'`{preset}`' for preset in presets)}" if presets else "as stored"
    sources = [source.source for source in data.mix] or [data.source]
    return f"source {', '.join(f'`{source}`' for source in dict.fromkeys(sources))}, crops of {data.crop} x {data.crop} pixels, {spoilt}"


def without_folders(value: Any) -> Any:
    """The same with every absolute path cut down to its last name: a card is published, a person's folders are not."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def machine(device: torch.device, processes: int) -> str:
    """`2 processes on Intel Xeon, 2 threads each`, or the name of the GPU."""
    each = " each" if processes > 1 else ""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor_name()}, {torch.get_num_threads()} threads{each}"
    return f"{processes} processes on {place}" if processes > 1 else place


def processor_name() -> str:
    """As Linux names its model; elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine() or "a processor without a name"


def code_version() -> str:
    """The package's version and, in a clone, its commit; `-dirty` where files differ from it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commit = _commit()
    return f"{project['name']} {project['version']}" + (f", commit {commit}" if commit else "")


def _commit() -> str:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return ""
    command = [git, "-C", os.fspath(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def licence(recipe: Recipe) -> str:
    """Ours, and that of everything published that the run began with, which holds for what is derived from it."""
    settings = stage_class(recipe.stage).Settings.model_validate(recipe.settings).model_dump()
    if "dcp" in settings and settings["encoder"] == "auto":
        # The one that the DCP was trained with, whose licence is looked at.
        del settings["encoder"]
    found = {_begun_with(settings.get(name), FOUNDATIONS.get(recipe.stage, ())) for name in BEGINNINGS}
    return "; ".join(sorted(found - {OWN_LICENCE}) or [f"{OWN_LICENCE}; no published weights went in"])


def _begun_with(weights: object, bases: Sequence[str]) -> str:
    """The licence that comes with those weights: what the card beside a file of ours says, else that of the stage's published ones."""
    if not isinstance(weights, str) or weights == EMBEDDED:
        return OWN_LICENCE
    card = Path(weights).with_suffix(".md")
    if card.is_file():
        lines = card.read_text(encoding="utf-8").splitlines()
        return next((line.removeprefix(LICENCE).rstrip(".") for line in lines if line.startswith(LICENCE)), OWN_LICENCE)
    if not bases:
        return OWN_LICENCE
    return f"what is ours {OWN_LICENCE}; it is derived from {'; '.join(map(_named_licence, bases))}, whose licences hold for it too"


def _named_licence(base: str) -> str:
    if base == SD21:
        return base
    release = find_release(base)
    return f"{release.name} ({release.licence})"
