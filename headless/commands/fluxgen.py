"""`kintsugi fluxgen`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .. import console
from ..options import AsJson, Cpu, Device, Dtype, ExtraModelPaths, HostOptions, ModelsDirectory, Ray, Workers, elsewhere, host_options

if TYPE_CHECKING:
    from ..fluxgen_worker import Order
    from ..host import CommandLineHost
    from ..teams import Team

EXAMPLE = "Example: kintsugi fluxgen -o pairs --count 1000 --workers 4"
# The embedded Flux draws nothing worth more.
EMBEDDED_SIZE = 128, 96
PICTURES, PAIRS = "Pictures", "Pairs"

Out = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the data set: pool, shards and index.jsonl.")]
Count = Annotated[int, typer.Option("--count", min=1, help="How many pictures Flux draws; fewer are kept.", rich_help_panel=PICTURES)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Picture k uses seed + k.", rich_help_panel=PICTURES)]
Width = Annotated[
    int | None, typer.Option("--width", min=64, help="Pixels, before the crop; 1024, or 128 if embedded.", rich_help_panel=PICTURES)
]
Height = Annotated[int | None, typer.Option("--height", min=64, help="Pixels; 768, or 96 if embedded.", rich_help_panel=PICTURES)]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Steps of the sampler.", rich_help_panel=PICTURES)]
Guidance = Annotated[float, typer.Option("--guidance", min=0, help="The guidance scale that Flux is told.", rich_help_panel=PICTURES)]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="A prompt per line, taken in turn; else the empty one.", rich_help_panel=PICTURES),
]
Weights = Annotated[
    str, typer.Option("--weights", help="The Flux that draws: auto, or a name below the models folder.", rich_help_panel=PICTURES)
]
Embedded = Annotated[bool, typer.Option("--embedded", help="Same as --weights embedded.", rich_help_panel=PICTURES)]
Waiting = Annotated[
    Literal["none", "model", "group", "layerwise fp8"],
    typer.Option("--offload", help="Where weights wait between calls.", rich_help_panel=PICTURES),
]
Quantized = Annotated[
    Literal["none", "nf4"], typer.Option("--quantization", help="What Flux's weights become when they are read.", rich_help_panel=PICTURES)
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="A,B",
        help="Measures to select by; default pyiqa's CLIP-IQA, MUSIQ and MANIQA where installed.",
        rich_help_panel=PAIRS,
    ),
]
Percentile = Annotated[
    float,
    typer.Option("--keep-percentile", min=0, max=100, help="Drop what is below it in the pool, by any measure.", rich_help_panel=PAIRS),
]
Scale = Annotated[int, typer.Option("--scale", min=1, max=8, help="How many times smaller low quality is.", rich_help_panel=PAIRS)]
ShardSize = Annotated[int, typer.Option("--shard-size", min=1, help="Pairs in a tar file.", rich_help_panel=PAIRS)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")]


def fluxgen(
    out: Out,
    count: Count,
    seed: Seed = 0,
    width: Width = None,
    height: Height = None,
    steps: Steps = 20,
    guidance: Guidance = 4.0,
    prompts: Prompts = None,
    weights: Weights = "auto",
    embedded: Embedded = False,
    offload: Waiting = "none",
    quantization: Quantized = "none",
    metrics: Metrics = "",
    keep_percentile: Percentile = 5.0,
    scale: Scale = 4,
    shard_size: ShardSize = 1000,
    resume: Resume = False,
    workers: Workers = None,
    ray: Ray = None,
    device: Device = "auto",
    cpu: Cpu = False,
    dtype: Dtype = "auto",
    models_directory: ModelsDirectory = None,
    extra_model_paths: ExtraModelPaths = None,
    as_json: AsJson = False,
) -> None:
    """Let Flux draw pictures, keep the good ones, and write them with degraded versions as shards to train on."""
    from ...core.methods.fluxgen import Drawing
    from ..fluxgen import run_fluxgen
    from ..fluxgen_folder import require_free
    from ..fluxgen_worker import Order
    from ..host import chosen_folders, command_line_host

    require_free(out, resume)
    lines = _prompts(prompts) if prompts else ("",)
    chosen = "embedded" if embedded else weights
    usual = Drawing(*EMBEDDED_SIZE) if chosen == "embedded" else Drawing()
    drawing = Drawing(width or usual.width, height or usual.height, steps, guidance)
    order = Order(count, seed, drawing, lines, metrics, keep_percentile, scale, shard_size, chosen, offload, quantization)
    options = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    with command_line_host(options, chosen_folders(options, None, out)) as host, _team(out, order, options, host, workers, ray) as team:
        summary = run_fluxgen(out, order, team)
    if as_json:
        console.say_json(asdict(summary))
        return
    console.say(f"{summary.drawn} pictures drawn with {summary.weights}, {summary.found} were there.")
    passing = ", ".join(f"{name} {bound}" for name, bound in summary.metrics.items())
    console.say(f"{summary.kept} kept, with {passing}; {summary.dropped} dropped.")
    console.say(f"Shards: {len(summary.shards)}, in {out}.")


def _prompts(path: Path) -> tuple[str, ...]:
    from ...core.errors import BadValueError, FileAccessError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileAccessError(f"cannot be read ({error}).", where=str(path), way_out="Give a text file in UTF-8.") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise BadValueError("holds no prompt.", where=str(path), way_out="Write one on each line, or leave --prompts out.")
    return prompts


def _team(out: Path, order: Order, options: HostOptions, host: CommandLineHost, workers: int | None, ray: str | None) -> Team:
    import torch

    from ..fluxgen_folder import begun_with
    from ..fluxgen_worker import Worker
    from ..recruit import Recruit
    from ..teams import OnRay, Processes, Threads

    # The last bits depend on it, and a run may go on where there are more cores.
    threads = int(begun_with(out).get("threads", torch.get_num_threads()))
    torch.set_num_threads(threads)
    recruit = Recruit(Worker, order, elsewhere(options), threads)
    if ray is not None:
        return OnRay(recruit, ray, workers)
    return Threads(Worker(order, host)) if workers in (None, 1) else Processes(recruit, workers)
