"""`kintsugi batch`."""

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
    HostOptions,
    ModelsDirectory,
    Overwrite,
    Ray,
    Set,
    Workers,
    elsewhere,
    host_options,
)  # fmt: skip

if TYPE_CHECKING:
    from ..batch_worker import Order
    from ..host import CommandLineHost
    from ..manifest import Record
    from ..teams import Team

EXAMPLE = "Example: kintsugi batch restore_photo scans restored --resume"
# While one picture is computed, the files of another are read and written.
LANES = 2


def batch(
    workflow: Annotated[
        str, typer.Argument(metavar="WORKFLOW", help="A workflow that loads one picture: a file, or a name of the package's own.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN_DIR", help="Folder of pictures, looked through with its subfolders.")],
    target: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the results, with the same subfolders, and manifest.jsonl.")],
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is done; do again what changed, failed or is missing.")] = False,
    node: Annotated[
        str, typer.Option("--input", metavar="NODE", help="Which node loads the pictures, where several do.", rich_help_panel=WORKFLOW)
    ] = "",
    sets: Set = None,
    embedded: Embedded = False,
    overwrite: Overwrite = False,
    report: Annotated[bool, typer.Option("--report", help="Write report.html: pictures before and after, and plots.")] = False,
    workers: Workers = None,
    ray: Ray = None,
    device: Device = "auto",
    cpu: Cpu = False,
    dtype: Dtype = "auto",
    models_directory: ModelsDirectory = None,
    extra_model_paths: ExtraModelPaths = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow on every picture of a folder. Each is made with the workflow's seed, as if alone."""
    from ..batch import Way, blueprint_of, run_batch
    from ..batch_groups import parting_nodes
    from ..batch_plan import plan_batch
    from ..batch_report import require_report_package, write_report
    from ..batch_worker import Order
    from ..changes import Changes, chosen_loader, picture_inputs
    from ..host import chosen_folders, command_line_host
    from ..manifest import read_manifest
    from ..run import WorkflowRunner, find_workflow
    from ..teams import agreed

    if report:
        require_report_package()
    plan = plan_batch(source, target, resume, overwrite)
    options = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    with command_line_host(options, chosen_folders(options, source, target)) as host:
        changes = Changes(sets=tuple(sets or ()), embedded=embedded)
        runner = WorkflowRunner(find_workflow(workflow), changes)
        loaders = picture_inputs(runner.prompt, runner.registry)
        loader = chosen_loader(runner.prompt, loaders, node)
        with _team(Order(runner.document, changes, loader), options, host, workers, ray, _threads(target, resume)) as team:
            settings = agreed(team.each("describe"))
            together = settings["micro_batch"] if parting_nodes(runner.prompt, runner.registry, loader) else 1
            way = Way(blueprint_of(runner.prompt, loader, loaders[loader]), settings, together)
            summary = run_batch(team, plan, way, resume, overwrite, lambda record: _report(record, as_json))
        if report:
            write_report(source, target, list(read_manifest(target).values()), summary, workflow)
    if as_json:
        console.say_event("summary", asdict(summary))
    else:
        console.say(
            f"{summary.done} restored, {summary.kept} kept, {summary.failed} failed, {summary.not_pictures} other files passed over."
        )
    if summary.failed:
        raise typer.Exit(1)


def _threads(target: Path, resume: bool) -> int:
    """The last bits depend on them, and a batch may go on where there are more cores."""
    import torch

    from ..manifest import read_manifest

    earlier = read_manifest(target).values() if resume else ()
    return next((int(record.settings["threads"]) for record in earlier if "threads" in record.settings), torch.get_num_threads())


def _team(order: Order, options: HostOptions, host: CommandLineHost, workers: int | None, ray: str | None, threads: int) -> Team:
    import torch

    from ..batch_worker import Worker
    from ..recruit import Recruit
    from ..teams import OnRay, Processes, Threads

    torch.set_num_threads(threads)
    recruit = Recruit(Worker, order, elsewhere(options), threads)
    if ray is not None:
        return OnRay(recruit, ray, workers, LANES)
    return Threads(Worker(order, host), LANES) if workers in (None, 1) else Processes(recruit, workers, LANES)


def _report(record: Record, as_json: bool) -> None:
    if as_json:
        console.say_event("picture", asdict(record))
    elif record.error is not None:
        console.complain(record.error if record.error.startswith(record.input) else f"{record.input}: {record.error}")
    else:
        console.say(f"{record.input} -> {', '.join(record.outputs)}  {record.seconds:.1f} s")
