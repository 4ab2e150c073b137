"""A batch in this process, as the command runs it without --workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kintsugi.core.graph.documents import read_workflow
from kintsugi.headless.batch import BatchSummary, Way, blueprint_of, run_batch
from kintsugi.headless.batch_plan import Batch
from kintsugi.headless.batch_worker import Order, Worker
from kintsugi.headless.changes import Changes, only_loader, picture_inputs
from kintsugi.headless.manifest import Record
from kintsugi.headless.run import WorkflowRunner
from kintsugi.headless.teams import Threads
from tiny_workflow import on_command_line


def run_tiny_batch(
    workflow: Path, plan: Batch, resume: bool = False, overwrite: bool = False, report: Callable[[Record], None] = lambda record: None
) -> BatchSummary:
    with on_command_line(plan.target) as (host, _):
        runner = WorkflowRunner(read_workflow(workflow), Changes())
        loaders = picture_inputs(runner.prompt, runner.registry)
        loader = only_loader(runner.prompt, loaders)
        worker = Worker(Order(runner.document, Changes(), loader), host)
        with Threads(worker, lanes=2) as team:
            way = Way(blueprint_of(runner.prompt, loader, loaders[loader]), worker.describe())
            return run_batch(team, plan, way, resume, overwrite, report)
