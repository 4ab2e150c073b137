"""`kintsugi restore`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console
from ..options import (
    WORKFLOW,
    AsJson,
    Cpu,
    Device,
    Dtype,
    Embedded,
    ExtraModelPaths,
    ModelsDirectory,
    Overwrite,
    Set,
    host_options,
)

if TYPE_CHECKING:
    from ..changes import Changes
    from ..restore import Restored, Task

EXAMPLE = "Example: kintsugi restore old.jpg -o restored.png --scale 2"


def restore(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Pictures to restore.", show_default=False)],
    out: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="A file for one photo; a folder for several, or ending in /.")],
    workflow: Annotated[
        str, typer.Option("--workflow", help="A workflow of the package, or a file.", rich_help_panel=WORKFLOW)
    ] = "restore_photo",
    scale: Annotated[float | None, typer.Option("--scale", help="Size of the result, as a multiple.", rich_help_panel=WORKFLOW)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same picture.", rich_help_panel=WORKFLOW)] = None,
    sets: Set = None,
    embedded: Embedded = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    cpu: Cpu = False,
    dtype: Dtype = "auto",
    models_directory: ModelsDirectory = None,
    extra_model_paths: ExtraModelPaths = None,
    as_json: AsJson = False,
) -> None:
    """Restore photos with the package's own workflow, or another one."""
    from ..host import chosen_folders, command_line_host
    from ..restore import plan, restore_photos
    from ..run import WorkflowRunner, find_workflow

    tasks = plan(photos, out)
    options = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    folders = chosen_folders(options, None, tasks[0].folder)
    with command_line_host(options, folders):
        runner = WorkflowRunner(find_workflow(workflow), _changes(tasks, scale, seed, sets, embedded))
        results = restore_photos(runner, tasks, folders, overwrite, lambda result: _report(result, as_json))
    failed = sum(result.error is not None for result in results)
    if as_json:
        console.say_json([asdict(result) for result in results])
    elif len(results) > 1:
        console.say(f"{len(results) - failed} restored, {failed} failed.")
    if failed:
        raise typer.Exit(1)


def _changes(tasks: list[Task], scale: float | None, seed: int | None, sets: list[str] | None, embedded: bool) -> Changes:
    from ...core.imaging.photo import format_of
    from ..changes import Changes

    values = {name: value for name, value in (("scale", scale), ("seed", seed)) if value is not None}
    file_format = format_of(tasks[0].exact) if tasks[0].exact else None
    return Changes(sets=tuple(sets or ()), values=values, file_format=file_format, embedded=embedded)


def _report(result: Restored, as_json: bool) -> None:
    if result.error is not None:
        console.complain(result.error)
    elif not as_json:
        outputs = ", ".join(map(str, result.outputs))
        console.say(f"{result.photo} -> {outputs}  {result.width} x {result.height}  {result.seconds:.1f} s")
