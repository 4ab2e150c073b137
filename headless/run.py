"""Run a workflow without ComfyUI: read, convert, change, validate, execute, and say which files came out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import FileAccessError, Interrupted, KintsugiError, WorkflowError
from ..core.folders import Folders
from ..core.graph.conversion import prompt_of
from ..core.graph.documents import Document, read_workflow
from ..core.graph.events import NodeFailure
from ..core.graph.executor import ExecutionResult, Executor
from ..core.graph.registry import Registry
from ..core.graph.validation import Validation, fault_lines, validate
from ..core.runtime import current_host
from .changes import Changes, Prompt, changed, with_files
from .node_registry import full_registry

WORKFLOWS = Path(__file__).parent.parent / "workflows"


@dataclass(frozen=True)
class WorkflowResult:
    """files: every picture written to the output folder, in the order of the nodes. texts: what nodes report, by node.

    blocked: why parts of the workflow did not run, a line each.
    """

    files: list[Path]
    texts: dict[str, list[str]]
    blocked: list[str]
    seconds: float


def find_workflow(name: str) -> Path:
    """A file, or one of the package's own workflows by its name; FileAccessError listing those otherwise."""
    shipped = WORKFLOWS / f"{name}.json"
    if shipped.is_file() and "/" not in name:
        return shipped
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(path.stem for path in WORKFLOWS.glob("*.json"))) or "none"
    raise FileAccessError("no such workflow.", where=name, way_out=f"Give a file, or one of the package's own: {known}.")


class WorkflowRunner:
    """A workflow prepared once and run on many pictures; what did not change between two runs, as a loaded model, stays."""

    def __init__(self, workflow: Path, changes: Changes, registry: Registry | None = None) -> None:
        self.registry = registry or full_registry()
        self.document: Document = read_workflow(workflow)
        prompt = prompt_of(self.document, self.registry)
        _refuse(Validation(node_errors=validate(prompt, self.registry, targets=()).node_errors), prompt, self.document.source)
        self.prompt: Prompt = changed(prompt, self.registry, changes)
        self._executor = Executor(self.registry)

    def run(self, files: Mapping[str, Path], folders: Folders) -> WorkflowResult:
        """Run with these pictures in the loading nodes ({node: path}), results below `folders.output`.

        Raises WorkflowError with a line per fault when the prompt is not valid, and what a node raised when one fails.
        """
        started = time.perf_counter()
        prompt, granting = with_files(self.prompt, self.registry, folders, files)
        host = current_host()
        before, host.folders = host.folders, granting
        try:
            result = self._execute(prompt)
        finally:
            host.folders = before
        blocked = [f"{_place(failure)}: {failure.message}" for failure in result.blocked]
        return WorkflowResult(_written(result, folders), _texts(result), blocked, time.perf_counter() - started)

    def run_into(self, staging: Path, files: Mapping[str, Path], folders: Folders) -> WorkflowResult:
        """Like `run`, with the results in that folder instead of `folders.output`."""
        return self.run(files, replace(folders, output=staging))

    def _execute(self, prompt: Prompt) -> ExecutionResult:
        validation = validate(prompt, self.registry)
        _refuse(validation, prompt, self.document.source)
        extra = {} if self.document.workflow is None else {"extra_pnginfo": {"workflow": self.document.workflow}}
        result = self._executor.run(prompt, validation.outputs, extra_data=extra)
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


def _texts(result: ExecutionResult) -> dict[str, list[str]]:
    return {node: [str(text) for text in ui["text"]] for node, ui in result.ui.items() if ui.get("text")}
