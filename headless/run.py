"""Run a workflow without ComfyUI: read, convert, change, validate, execute, and say which files came out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core.errors import FileAccessError, Interrupted, KintsugiError, WorkflowError
from ..core.folders import Folders
from ..core.graph.conversion import prompt_of
from ..core.graph.documents import Document, read_workflow
from ..core.graph.events import NodeFailure
from ..core.graph.executor import ExecutionResult, Executor
from ..core.graph.registry import Registry
from ..core.graph.validation import Validation, fault_lines, validate
from ..core.runtime import current_host
from ..nodes.quality import QUALITY
from .changes import Changes, Prompt, changed, title_of, with_files
from .node_registry import full_registry

WORKFLOWS = Path(__file__).parent.parent / "workflows"


@dataclass(frozen=True)
class WorkflowResult:
    """files: every picture written to the output folder, in the order of the nodes. texts: what nodes report, by node.

    blocked: why parts of the workflow did not run, a line each. metrics: what nodes measured, by their title and the measure's name; the
    mean of several pictures, None for what is no finite number.
    """

    files: list[Path]
    texts: dict[str, list[str]]
    blocked: list[str]
    seconds: float
    metrics: dict[str, dict[str, float | None]]


def find_workflow(name: str) -> Path:
    """A file, or one of the package's own workflows by its name; FileAccessError listing those otherwise."""
    shipped = WORKFLOWS / f"{name}.json"
    if shipped.is_file() and "/" not in name:
        return shipped
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(path.stem for path in WORKFLOWS.glob("*.json"))) or "none"
    raise FileAccessError("no such workflow.", where=name, way_out=f"Give a file, or one of the package's own: {known}.")


@dataclass(frozen=True)
class Feed:
    """Beside a prompt: the values of nodes that need not run for them, one per output; which nodes to run for, the prompt's output
    nodes when None; and further nodes whose values are wanted."""

    given: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    outputs: Sequence[str] | None = None
    keep: Sequence[str] = ()


class WorkflowRunner:
    """A workflow prepared once and run on many pictures; what did not change between two runs, as a loaded model, stays."""

    def __init__(self, workflow: Path | Document, changes: Changes, registry: Registry | None = None) -> None:
        self.registry = registry or full_registry()
        self.document = workflow if isinstance(workflow, Document) else read_workflow(workflow)
        prompt = prompt_of(self.document, self.registry)
        _refuse(Validation(node_errors=validate(prompt, self.registry, targets=()).node_errors), prompt, self.document.source)
        self.prompt: Prompt = changed(prompt, self.registry, changes)
        self._executor = Executor(self.registry)

    def run(self, files: Mapping[str, Path], folders: Folders) -> WorkflowResult:
        """Run with these pictures in the loading nodes ({node: path}), results below `folders.output`.

        Raises WorkflowError with a line per fault when the prompt is not valid, and what a node raised when one fails.
        """
        prompt, granting = with_files(self.prompt, self.registry, folders, files)
        return self.run_prompt(prompt, granting)[0]

    def run_into(self, staging: Path, files: Mapping[str, Path], folders: Folders) -> WorkflowResult:
        """Like `run`, with the results in that folder instead of `folders.output`."""
        return self.run(files, replace(folders, output=staging))

    def run_prompt(self, prompt: Prompt, folders: Folders, feed: Feed | None = None) -> tuple[WorkflowResult, ExecutionResult]:
        """Like `run`, with a prompt made of `self.prompt`, and what is beside it; the values of its nodes come as well."""
        started = time.perf_counter()
        host = current_host()
        before, host.folders = host.folders, folders
        try:
            result = self._execute(prompt, feed or Feed())
        finally:
            host.folders = before
        blocked = [f"{_place(failure)}: {failure.message}" for failure in result.blocked]
        seconds = time.perf_counter() - started
        return WorkflowResult(_written(result, folders), _texts(result), blocked, seconds, _metrics(result, prompt)), result

    def _execute(self, prompt: Prompt, feed: Feed) -> ExecutionResult:
        validation = validate(prompt, self.registry, given=feed.given)
        _refuse(validation, prompt, self.document.source)
        extra = {} if self.document.workflow is None else {"extra_pnginfo": {"workflow": self.document.workflow}}
        outputs = validation.outputs if feed.outputs is None else feed.outputs
        result = self._executor.run(prompt, outputs, None, extra, feed.keep, feed.given, anew=validation.outputs)
        if result.status == "interrupted":
            raise Interrupted
        if result.error is not None:
            raise KintsugiError(result.error.message, where=_place(result.error)) from result.error.exception
        return result


def _refuse(validation: Validation, prompt: Prompt, source: str) -> None:
    """WorkflowError with a line per fault, when there are faults."""
    faults = fault_lines(validation, prompt)
    if faults:
        raise WorkflowError("\n  ".join(["cannot run:", *faults]), where=source)


def _place(failure: NodeFailure) -> str:
    return f"node {failure.node_id} ({failure.title})"


def _written(result: ExecutionResult, folders: Folders) -> list[Path]:
    shown = (entry for ui in result.ui.values() for entry in ui.get("images", []))
    return [folders.output / entry["subfolder"] / entry["filename"] for entry in shown if entry["type"] == "output"]


def _metrics(result: ExecutionResult, prompt: Prompt) -> dict[str, dict[str, float | None]]:
    measured = {node: ui[QUALITY] for node, ui in result.ui.items() if ui.get(QUALITY)}
    uses = Counter(title_of(prompt, node) for node in measured)
    titles = {node: title_of(prompt, node) for node in measured}
    return {title if uses[title] == 1 else f"{title} ({node})": _means(measured[node]) for node, title in titles.items()}


def _means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """By measure; a value that is not finite is a word in the rows."""
    values: dict[str, list[Any]] = {}
    for score in chain.from_iterable(row["scores"] for row in rows):
        values.setdefault(score["metric"], []).append(score["value"])
    return {name: None if any(isinstance(value, str) for value in found) else fmean(found) for name, found in values.items()}


def _texts(result: ExecutionResult) -> dict[str, list[str]]:
    return {node: [str(text) for text in ui["text"]] for node, ui in result.ui.items() if ui.get("text")}
