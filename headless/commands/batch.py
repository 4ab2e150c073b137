"""`kintsugi batch`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console
from ..options import AsJson, Cpu, Device, Dtype, Embedded, ExtraModelPaths, ModelsDirectory, Overwrite, Set, host_options

if TYPE_CHECKING:
    from ..manifest import Record

EXAMPLE = "Example: kintsugi batch restore_photo scans restored --resume"


def batch(
    workflow: Annotated[
        str, typer.Argument(metavar="WORKFLOW", help="A workflow that loads one picture: a file, or a name of the package's own.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN_DIR", help="Folder of pictures, looked through with its subfolders.")],
    target: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the results, with the same subfolders, and manifest.jsonl.")],
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is done; do again what changed, failed or is missing.")] = False,
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
    """Run a workflow on every picture of a folder."""
    from ..batch import plan_batch, run_batch
    from ..changes import Changes
    from ..host import chosen_folders, command_line_host
    from ..run import WorkflowRunner, find_workflow

    plan = plan_batch(source, target, resume, overwrite)
    options = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    folders = chosen_folders(options, source, target)
    with command_line_host(options, folders):
        runner = WorkflowRunner(find_workflow(workflow), Changes(sets=tuple(sets or ()), embedded=embedded))
        summary = run_batch(runner, plan, folders, resume, overwrite, lambda record: _report(record, as_json))
    if as_json:
        console.say_json(asdict(summary))
    else:
        console.say(
            f"{summary.done} restored, {summary.kept} kept, {summary.failed} failed, {summary.not_pictures} other files passed over."
        )
    if summary.failed:
        raise typer.Exit(1)


def _report(record: Record, as_json: bool) -> None:
    if record.error is not None:
        console.complain(f"{record.input}: {record.error}")
    elif not as_json:
        console.say(f"{record.input} -> {', '.join(record.outputs)}  {record.seconds:.1f} s")
