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
SCORE_EXAMPLE = (
    "Example: kintsugi score restored/ --reference originals/ --metrics psnr,ssim   "
    "or: kintsugi score restored/ --reference originals/ --protocol tsd-sr"
)


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
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="PAPER", help="A paper's evaluation: tsd-sr, gendr, instarevive, instantir or fluxir."),
    ] = None,
    device: Device = "auto",
    cpu: Cpu = False,
    as_json: AsJson = False,
) -> None:
    """Measure the quality of pictures, alone or against their originals."""
    from ..host import chosen_folders, command_line_host

    if protocol is not None and metrics:
        raise BadValueError("a protocol names its own measures.", where="--metrics", way_out="Leave out --metrics or --protocol.")
    options = HostOptions(device=device, cpu=cpu)
    with command_line_host(options, chosen_folders(options, None, Path.cwd())):
        report = _scored(outputs, reference, metrics) if protocol is None else _evaluated(outputs, reference, protocol)
    if as_json:
        console.say_json(report)
    elif protocol is None:
        _say_scores([entry for entry in report["pictures"] if "scores" in entry], report["mean"])
    else:
        _say_evaluation(report)
    errors = [entry["error"] for entry in report["pictures"] if "error" in entry]
    for error in errors:
        console.complain(error)
    if errors:
        raise typer.Exit(1)


def _scored(outputs: list[Path], reference: Path | None, metrics: str) -> dict[str, Any]:
    from .score import mean_scores, score_files

    entries = score_files(outputs, reference, metrics)
    return {"pictures": entries, "mean": mean_scores(entries)}


def _evaluated(outputs: list[Path], reference: Path | None, protocol: str) -> dict[str, Any]:
    from ...core.protocols import find_protocol
    from .protocol_score import score_by_protocol

    return score_by_protocol(outputs, reference, find_protocol(protocol))


def _say_evaluation(report: dict[str, Any]) -> None:
    """Pictures, their mean and the paper's rows under the paper's columns, then what is missing and how it was read."""
    scored = [entry for entry in report["pictures"] if "scores" in entry]
    rows = [(entry["file"], entry["scores"]) for entry in scored]
    rows += [(f"mean of {len(scored)}", report["mean"])]
    rows += [(f"published: {row['data_set']} ({row['table']})", row["values"]) for row in report["published"]]
    labels = list(report["mean"])
    console.say(f"{report['protocol']}: {report['source']}")
    console.say_table(("", *labels), [(name, *(_short(values.get(label)) for label in labels)) for name, values in rows])
    for reason in dict.fromkeys(report["unavailable"].values()):
        concerned = [label for label, found in report["unavailable"].items() if found == reason]
        console.say(f"{', '.join(concerned)}: {reason}")
    for note in report["notes"]:
        console.say(f"note: {note}")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _say_scores(scored: list[dict[str, Any]], means: Mapping[str, float]) -> None:
    if not scored:
        return
    names = list(scored[0]["scores"])
    rows = [(entry["file"], *_cells(entry["scores"])) for entry in scored]
    console.say_table(("file", *names), [*rows, ("mean", *_cells({name: means.get(name) for name in names}))])


def _cells(scores: Mapping[str, float | None]) -> list[str]:
    """None is the infinite PSNR of equal pictures."""
    return ["inf" if value is None else f"{value:.4f}" for value in scores.values()]
