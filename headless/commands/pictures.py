"""`kintsugi degrade` and `kintsugi score`: their command lines; the work is in degrade.py and score.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ...core.errors import BadValueError
from .. import console
from ..options import AsJson, Cpu, Device, HostOptions, Overwrite

DEGRADE_EXAMPLE = "Example: kintsugi degrade photo.png -o degraded.png --preset real-esrgan --scale 4 --seed 7"
SCORE_EXAMPLE = "Example: kintsugi score restored/ --reference originals/ --metrics psnr,ssim"


def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of them.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="A file for one picture, else a folder.")],
    preset: Annotated[str, typer.Option("--preset", help="Name of a degradation; an unknown one lists them.")] = "real-esrgan",
    scale: Annotated[int, typer.Option("--scale", min=1, help="How many times smaller the result is.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same degradation; picture i uses seed + i.")] = 0,
    overrides: Annotated[str | None, typer.Option("--overrides", metavar="JSON", help="Entries of the preset to change.")] = None,
    replay: Annotated[Path | None, typer.Option("--replay", metavar="FILE", help="Repeat the parameters written beside a picture.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    cpu: Cpu = False,
    as_json: AsJson = False,
) -> None:
    """Make low-quality pictures, with every sampled parameter in a .json beside each."""
    from ..host import chosen_folders, command_line_host
    from .degrade import degrade_files

    options = HostOptions(device=device, cpu=cpu)
    with command_line_host(options, chosen_folders(options, None, out)):
        report = degrade_files(inputs, out, preset, scale, seed, _json_object(overrides), replay, overwrite)
    if as_json:
        console.say_json(report)
    for entry in report:
        if "error" in entry:
            console.complain(entry["error"])
        elif not as_json:
            console.say(f"{entry['input']} -> {entry['output']}  {entry['size'][0]} x {entry['size'][1]}")
    if any("error" in entry for entry in report):
        raise typer.Exit(1)


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadValueError(f"is not JSON ({error}).", where="--overrides", way_out="For example: --overrides '{\"noise\": 0}'") from error
    if not isinstance(value, dict):
        raise BadValueError("is not a JSON object.", where="--overrides", way_out="For example: --overrides '{\"noise\": 0}'")
    return value


def score(
    outputs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Pictures, or folders of them.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="HQ", help="The original, or a folder of originals of the same names.")
    ] = None,
    metrics: Annotated[str, typer.Option("--metrics", metavar="a,b", help="Names separated by commas; an unknown one lists them.")] = "",
    device: Device = "auto",
    cpu: Cpu = False,
    as_json: AsJson = False,
) -> None:
    """Measure the quality of pictures, alone or against their originals."""
    from ..host import chosen_folders, command_line_host
    from .score import mean_scores, score_files

    options = HostOptions(device=device, cpu=cpu)
    with command_line_host(options, chosen_folders(options, None, Path.cwd())):
        report = score_files(outputs, reference, metrics)
    means = mean_scores(report)
    if as_json:
        console.say_json({"pictures": report, "mean": means})
    else:
        _say_scores([entry for entry in report if "scores" in entry], means)
    for entry in report:
        if "error" in entry:
            console.complain(entry["error"])
    if any("error" in entry for entry in report):
        raise typer.Exit(1)


def _say_scores(scored: list[dict[str, Any]], means: Mapping[str, float]) -> None:
    if not scored:
        return
    names = list(scored[0]["scores"])
    rows = [(entry["file"], *_cells(entry["scores"])) for entry in scored]
    console.say_table(("file", *names), [*rows, ("mean", *_cells({name: means.get(name) for name in names}))])


def _cells(scores: Mapping[str, float | None]) -> list[str]:
    """None is the infinite PSNR of equal pictures."""
    return ["inf" if value is None else f"{value:.4f}" for value in scores.values()]
