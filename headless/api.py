"""Kintsugi from Python: `kintsugi.run`, `kintsugi.restore` and `kintsugi.unload_models`. docs/python.md has an example of each.

All of it may be called from several threads; the calls run one after the other, for they share the loaded models. Nothing is
shown, no signal handler is installed: Ctrl-C raises KeyboardInterrupt. What a person can set right is raised as a KintsugiError.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from PIL import Image
from torch import Tensor

from ..core.errors import BadValueError
from ..core.folders import Folders
from ..core.graph.documents import Document, parse_workflow, read_workflow
from ..core.graph.prompt_graph import sources
from ..core.runtime import LocalHost, using_host
from .api_pictures import Picture, by_node, files_among, nodes_that_save, result_pictures, values_among
from .changes import Changes, changed, title_of, with_files
from .host import chosen_device, chosen_dtype, chosen_folders
from .manifest import json_sha256
from .options import HostOptions
from .results import make_folder
from .run import Feed, WorkflowRunner, find_workflow

Value = str | int | float | bool


class Method(NamedTuple):
    """The workflow that ships for a method, and which of its widgets enlarges."""

    workflow: str
    scale: str


METHODS = {
    "gendr": Method("restore_photo", "Restore.scale"),
    "tsd-sr": Method("tsd_sr", "Restore.scale"),
    "instarevive": Method("instarevive_photo", "Restore.scale"),
    "instantir": Method("instantir", "Working size.scale_by"),
    "fluxir": Method("fluxir", "Working size.scale_by"),
}


@dataclass(frozen=True)
class Result:
    """What a workflow made.

    pictures: those that it saves or shows, in the order of its nodes: PIL.Image, or tensors [B, H, W, 3] when it was given one.
    files: where they were written, when an output folder was named. texts: what nodes report, by title. metrics: what nodes
    measured, by title and the measure's name.
    """

    pictures: list[Any]
    files: list[Path]
    texts: dict[str, list[str]]
    metrics: dict[str, dict[str, float | None]]
    seconds: float


def run(
    workflow: str | os.PathLike[str] | Mapping[str, Any],
    inputs: Mapping[str, Picture] | Picture | None = None,
    overrides: Mapping[str, Value] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    embedded: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    models_directory: str | os.PathLike[str] | None = None,
) -> Result:
    """Run a workflow once, as `kintsugi run` does, and get its pictures.

    workflow: one of the package's own by name, a file (JSON in UI or API format, or a picture that carries one), or such JSON as a
    dict. inputs: {node: picture}, the node by id or title, or the picture alone where a single node loads one; a picture is a path,
    a PIL.Image, or a tensor [B, H, W, 3] in 0..1. overrides: {"NODE.input": value}. output: a folder to write the results to;
    without it nothing is written that stays. embedded: the small weights of the package everywhere. device, dtype: as on the
    command line. models_directory: $KINTSUGI_MODELS when left out.

    Pillow's pictures keep transparency, profile and EXIF where the workflow's Save Photo would, and have 8 bits; tensors are not
    rounded. The models stay loaded until another workflow runs, or unload_models(). Raises KintsugiError.
    """
    document = _document(workflow)
    changes = Changes(sets=_assignments(overrides), embedded=embedded)
    return _run(document, inputs, changes, output, _options(device, dtype, models_directory))


@overload
def restore(
    image: Tensor, method: str = ..., *, scale: float = ..., seed: int = ..., overrides: Mapping[str, Value] | None = ...,
    embedded: bool = ..., device: str = ..., dtype: str = ..., models_directory: str | os.PathLike[str] | None = ...,
) -> Tensor: ...  # fmt: skip


@overload
def restore(
    image: str | os.PathLike[str] | Image.Image, method: str = ..., *, scale: float = ..., seed: int = ...,
    overrides: Mapping[str, Value] | None = ..., embedded: bool = ..., device: str = ..., dtype: str = ...,
    models_directory: str | os.PathLike[str] | None = ...,
) -> Image.Image: ...  # fmt: skip


def restore(
    image: Picture,
    method: str = "gendr",
    *,
    scale: float = 1,
    seed: int = 0,
    overrides: Mapping[str, Value] | None = None,
    embedded: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    models_directory: str | os.PathLike[str] | None = None,
) -> Image.Image | Tensor:
    """Restore a picture with one of the METHODS: the pixels of `kintsugi restore --workflow` with the workflow that ships for it.

    image: a path or PIL.Image gives a PIL.Image of 8 bits, with the source's transparency, profile and EXIF; of a 16-bit file all
    16 are read and the result is rounded. A tensor [B, H, W, 3] in 0..1 gives one in float32, not rounded; its picture i is
    restored with seed + i, as if it were alone. scale: size of the result, as a multiple. The rest: as for run().
    """
    if method not in METHODS:
        raise BadValueError(f"there is no method {method!r}.", way_out=f"Use one of {', '.join(METHODS)}.")
    chosen = METHODS[method]
    sets = (f"{chosen.scale}={scale}", *_assignments(overrides))
    changes = Changes(sets=sets, values={"seed": seed}, embedded=embedded)
    result = _run(_document(chosen.workflow), image, changes, None, _options(device, dtype, models_directory))
    return result.pictures[0]


def unload_models() -> None:
    """Free the models, and whatever else the last workflow left in memory for the next call."""
    with _one_at_a_time:
        _keep(None)


def _document(workflow: str | os.PathLike[str] | Mapping[str, Any]) -> Document:
    if isinstance(workflow, Mapping):
        return parse_workflow(dict(workflow), "the workflow")
    return read_workflow(find_workflow(os.fspath(workflow)))


def _assignments(overrides: Mapping[str, Value] | None) -> tuple[str, ...]:
    return tuple(f"{place}={value}" for place, value in (overrides or {}).items())


def _options(device: str, dtype: str, models_directory: str | os.PathLike[str] | None) -> HostOptions:
    return HostOptions(device, dtype=dtype, models_directory=Path(models_directory) if models_directory else None)


def _run(
    document: Document,
    inputs: Mapping[str, Picture] | Picture | None,
    changes: Changes,
    output: str | os.PathLike[str] | None,
    options: HostOptions,
) -> Result:
    with _one_at_a_time, _results_folder(output) as folder, _host(options, folder) as host:
        runner = _runner(document, options, host.folders)
        prompt = changed(runner.prompt, runner.registry, changes)
        pictures = by_node(prompt, runner.registry, inputs)
        prompt, folders = with_files(prompt, runner.registry, host.folders, files_among(pictures))
        given = values_among(prompt, runner.registry, pictures)
        saving = nodes_that_save(prompt, runner.registry)
        wanted = [source for node in saving for source in sources(prompt[node])]
        # Without a folder to write to, what would be saved is all that is made.
        unsaved = [node for node in _outputs(runner) if node not in saving]
        outcome, values = runner.run_prompt(prompt, folders, Feed(given, None if output else [*wanted, *unsaved], wanted))
        as_tensors = any(isinstance(picture, Tensor) for picture in pictures.values())
        made = result_pictures(prompt, runner.registry, values, folders, as_tensors)
    texts: dict[str, list[str]] = {}
    for node, lines in outcome.texts.items():
        texts.setdefault(title_of(prompt, node), []).extend(lines)
    return Result(made, outcome.files if output else [], texts, outcome.metrics, outcome.seconds)


def _outputs(runner: WorkflowRunner) -> list[str]:
    return [node for node, entry in runner.prompt.items() if runner.registry.definition(entry["class_type"]).is_output]


@contextmanager
def _results_folder(output: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder that was asked for, else one that is gone after the block."""
    if output is not None:
        make_folder(Path(output))
        yield Path(output)
    else:
        with tempfile.TemporaryDirectory(prefix="kintsugi-") as folder:
            yield Path(folder)


@contextmanager
def _host(options: HostOptions, output: Path) -> Iterator[LocalHost]:
    device = chosen_device(options.device, options.cpu)
    host = LocalHost(device, chosen_dtype(options.dtype, device), folders=chosen_folders(options, None, output))
    with using_host(host):
        yield host


# The workflow that ran last, with what makes it another one, and with its models.
_last: tuple[object, WorkflowRunner] | None = None
_one_at_a_time = threading.Lock()


def _runner(document: Document, options: HostOptions, folders: Folders) -> WorkflowRunner:
    """The last one if it is of this workflow, on this device, from these models; else a new one, after the last one's models are freed."""
    key = (json_sha256([document.workflow, document.prompt]), options.device, options.dtype, folders.models.resolve())
    if _last is not None and _last[0] == key:
        _last[1].registry.refresh()
        return _last[1]
    _keep(None)
    runner = WorkflowRunner(document, Changes())
    _keep((key, runner))
    return runner


def _keep(last: tuple[object, WorkflowRunner] | None) -> None:
    global _last
    _last = last
    if last is None:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
