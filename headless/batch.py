"""`kintsugi batch`: a folder of pictures through a workflow, mirrored into another folder, resumable by its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ..core.errors import FileAccessError, KintsugiError, PictureError
from ..core.folders import Folders
from ..core.picture_files import PICTURE_SUFFIXES, file_sha256
from ..core.runtime import current_host
from .changes import Prompt, only_loader, picture_inputs, seeds_of
from .manifest import NAME, Record, append_record, json_sha256, read_manifest, write_manifest
from .results import final_names, make_folder, move_all, output_stems, remove_left_staging, staging_folder
from .run import WorkflowRunner


@dataclass
class BatchSummary:
    """How many pictures were restored, kept from before, failed; and how many other files were passed over."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    not_pictures: int = 0


@dataclass(frozen=True)
class Batch:
    """The pictures of `source`, by their path below it, and where their results go below `target`."""

    source: Path
    target: Path
    stems: dict[str, str]
    not_pictures: int


def plan_batch(source: Path, target: Path, resume: bool, overwrite: bool) -> Batch:
    """Look through `source`. Raises FileAccessError when the folders cannot be used, or results of another run are there."""
    if not source.is_dir():
        raise FileAccessError("no such folder.", where=str(source), way_out="Check the path of the input folder.")
    if source.resolve() == target.resolve():
        raise FileAccessError("is both input and output.", where=str(source), way_out="Choose another output folder.")
    if (target / NAME).exists() and not (resume or overwrite):
        raise FileAccessError(
            "holds results of an earlier batch.", where=str(target), way_out="Add --resume to go on with it, or --overwrite to begin anew."
        )
    files = sorted(path.relative_to(source).as_posix() for path in _files_outside(source, target.resolve()))
    pictures = [name for name in files if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES]
    return Batch(source, target, dict(zip(pictures, output_stems(pictures), strict=True)), len(files) - len(pictures))


def _files_outside(source: Path, target: Path) -> Iterator[Path]:
    """Files below the source, hidden ones and those of the target left out."""
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != target]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def run_batch(
    runner: WorkflowRunner, batch: Batch, folders: Folders, resume: bool, overwrite: bool, report: Callable[[Record], None]
) -> BatchSummary:
    """Every picture of the batch, a line in the manifest and a report for each; one that fails never stops the rest.

    With resume, pictures whose file, workflow, settings and results are unchanged are kept, the others done again.
    """
    make_folder(batch.target)
    loaders = picture_inputs(runner.prompt, runner.registry)
    loader = only_loader(runner.prompt, loaders)
    blueprint = _blueprint(runner.prompt, loader, loaders[loader])
    # Where our manifest is, a file without a line is the result of a run killed between the two.
    may_replace = overwrite or (resume and (batch.target / NAME).exists())
    records = _still_good(batch.target, _settings(), blueprint) if resume else {}
    write_manifest(batch.target, list(records.values()))
    if resume:
        remove_left_staging(batch.target)
    summary = BatchSummary(not_pictures=batch.not_pictures)
    progress = current_host().progress(len(batch.stems), "Pictures")
    for name, stem in batch.stems.items():
        record = _new_record(batch, name, blueprint)
        if name in records and records[name].input_sha256 == record.input_sha256:
            summary.kept += 1
        else:
            if records.pop(name, None):
                write_manifest(batch.target, list(records.values()))
            records[name] = record = _run_one(runner, loader, batch, record, stem, folders, may_replace)
            append_record(batch.target, record)
            report(record)
            summary.failed += record.error is not None
            summary.done += record.error is None
        progress.advance()
    return summary


def _still_good(target: Path, settings: dict[str, Any], blueprint: Prompt) -> dict[str, Record]:
    """Earlier records without error, made in this same way, whose results are still there."""
    workflow = json_sha256(blueprint)
    return {
        name: record
        for name, record in read_manifest(target).items()
        if record.is_done(target) and (record.workflow_sha256, record.settings) == (workflow, settings)
    }


def _blueprint(prompt: Prompt, loader: str, input_name: str) -> Prompt:
    """The prompt without the one thing that differs between pictures."""
    entry = prompt[loader]
    return {**prompt, loader: {**entry, "inputs": {**entry["inputs"], input_name: None}}}


def _settings() -> dict[str, Any]:
    """What decides the last bits of a result beside the workflow."""
    host = current_host()
    return {
        "device": host.device.type,
        "dtype": str(host.dtype).removeprefix("torch."),
        "micro_batch": host.micro_batch,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _new_record(batch: Batch, name: str, blueprint: Prompt) -> Record:
    """The record of a picture before it is restored, with the error when its file cannot be read."""
    parameters = {
        node: {key: value for key, value in entry["inputs"].items() if not isinstance(value, list) and value is not None}
        for node, entry in blueprint.items()
    }
    record = Record(name, "", json_sha256(blueprint), _settings(), seeds_of(blueprint), parameters)
    try:
        return replace(record, input_sha256=file_sha256(batch.source / name))
    except FileAccessError as error:
        return replace(record, error=str(error))


def _run_one(runner: WorkflowRunner, loader: str, batch: Batch, record: Record, stem: str, folders: Folders, overwrite: bool) -> Record:
    if record.error is not None:
        return record
    try:
        with staging_folder(batch.target) as staging:
            # Named by its place in the folder, so that no two pictures look alike to the cache of results.
            photo = batch.source / record.input
            granting = replace(folders, granted={record.input: photo.resolve()})
            result = runner.run_into(staging, {loader: photo}, granting)
            if not result.files:
                raise PictureError("the workflow saved no picture.", way_out="Use one with a Save Photo or Save Image node.")
            outputs = final_names(result.files, batch.target, stem)
            move_all(result.files, outputs, overwrite)
    except KintsugiError as error:
        return replace(record, error=str(error))
    names = [path.relative_to(batch.target).as_posix() for path in outputs]
    return replace(record, outputs=names, seconds=round(result.seconds, 3))
