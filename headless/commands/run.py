"""`kintsugi run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...core.errors import BadValueError
from .. import console
from ..options import WORKFLOW, AsJson, Cpu, Device, Dtype, Embedded, ExtraModelPaths, ModelsDirectory, Set, host_options

if TYPE_CHECKING:
    from ..run import WorkflowResult

EXAMPLE = "Example: kintsugi run degrade_and_score --input photo.png -o results"


def run(
    workflow: Annotated[
        str, typer.Argument(metavar="WORKFLOW", help="UI or API JSON, a picture that carries one, or a name of the package's own.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NODE=path",
            help="Picture of a loading node (id or title); the path alone for a single one.",
            rich_help_panel=WORKFLOW,
        ),
    ] = None,
    sets: Set = None,
    embedded: Embedded = False,
    print_prompt: Annotated[bool, typer.Option("--print-prompt", help="Print the API prompt that would run, and run nothing.")] = False,
    input_directory: Annotated[
        Path | None, typer.Option("--input-directory", help="Where file names in the workflow are looked up; default here.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--output-directory", metavar="OUT_DIR", help="Folder of the results.")
    ] = None,
    device: Device = "auto",
    cpu: Cpu = False,
    dtype: Dtype = "auto",
    models_directory: ModelsDirectory = None,
    extra_model_paths: ExtraModelPaths = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow once, as ComfyUI would. Results are numbered on from what OUT_DIR holds; nothing is overwritten."""
    from ..changes import Changes, assigned_files, with_files
    from ..host import chosen_folders, command_line_host
    from ..results import make_folder
    from ..run import WorkflowRunner, find_workflow

    if output is None and not print_prompt:
        raise BadValueError(
            "the folder of the results is missing.", where="-o", way_out="Add -o OUT_DIR, or --print-prompt to run nothing."
        )
    options = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    folders = chosen_folders(options, input_directory, output or Path.cwd())
    with command_line_host(options, folders):
        runner = WorkflowRunner(find_workflow(workflow), Changes(sets=tuple(sets or ()), embedded=embedded))
        files = assigned_files(runner.prompt, runner.registry, inputs or [])
        if print_prompt:
            console.say_json(with_files(runner.prompt, runner.registry, folders, files)[0])
            return
        make_folder(folders.output)
        result = runner.run(files, folders)
    if as_json:
        console.say_json(asdict(result))
    else:
        _report(result)
    if result.blocked:
        raise typer.Exit(1)


def _report(result: WorkflowResult) -> None:
    for lines in result.texts.values():
        console.say("\n".join(lines))
    for file in result.files:
        console.say(str(file))
    for line in result.blocked:
        console.complain(line)
    console.say(f"{len(result.files)} pictures in {result.seconds:.1f} s.")
