"""Command-line options that several commands share, each described once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

COMPUTER = "Computer"
WORKFLOW = "Workflow"
TEAM = "Workers"


@dataclass(frozen=True)
class HostOptions:
    """Where and how exactly to compute, and where models lie."""

    device: str = "auto"
    cpu: bool = False
    dtype: str = "auto"
    models_directory: Path | None = None
    extra_model_paths: list[Path] = field(default_factory=list)


Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=COMPUTER)]
Cpu = Annotated[bool, typer.Option("--cpu", help="Same as --device cpu.", rich_help_panel=COMPUTER)]
Dtype = Annotated[
    str, typer.Option("--dtype", help="What a node's dtype `auto` means: auto, fp32, bf16 or fp16.", rich_help_panel=COMPUTER)
]
ModelsDirectory = Annotated[
    Path | None,
    typer.Option("--models-directory", help="The models tree; default $KINTSUGI_MODELS, else your data folder.", rich_help_panel=COMPUTER),
]
ExtraModelPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--extra-model-paths-config", help="A ComfyUI extra_model_paths.yaml; may be given several times.", rich_help_panel=COMPUTER
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.input=value", help="Change a widget; NODE is an id or a title.", rich_help_panel=WORKFLOW),
]
Embedded = Annotated[bool, typer.Option("--embedded", help="Use the small weights of the package everywhere.", rich_help_panel=WORKFLOW)]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes of this machine, each on the next GPU.", rich_help_panel=TEAM)
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Work on a Ray cluster: HOST:PORT, auto, or local to begin one.", rich_help_panel=TEAM),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def host_options(device: str, cpu: bool, dtype: str, models: Path | None, extra: list[Path] | None) -> HostOptions:
    """The shared options of one command line."""
    return HostOptions(device, cpu, dtype, models, extra or [])


def elsewhere(options: HostOptions) -> HostOptions:
    """The same for another process: folders are found from wherever it works."""
    models = options.models_directory and options.models_directory.absolute()
    return replace(options, models_directory=models, extra_model_paths=[path.absolute() for path in options.extra_model_paths])
