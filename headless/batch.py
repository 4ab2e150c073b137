"""`kintsugi batch`: a folder of pictures through a workflow, mirrored into another folder, resumable by its manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import FileAccessError, KintsugiError
from ..core.runtime import Progress, current_host
from .batch_groups import in_groups
from .batch_plan import Batch
from .batch_worker import Restored
from .changes import Prompt, seeds_of
from .manifest import NAME, Record, append_record, json_sha256, read_manifest, write_manifest, writing_to
from .results import final_names, make_folder, refuse_existing, remove_left_staging, staging_folder
from .teams import Task, Team

WAY_OUT = "What is finished is kept: when the folder can be written again, go on with --resume."


@dataclass
class BatchSummary:
    """How many pictures were restored, kept from before, failed; and how many other files were passed over."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    not_pictures: int = 0


@dataclass(frozen=True)
class Way:
    """How every picture is made: blueprint is the prompt without the picture, settings what else decides bits. together: how many
    pictures of one size may go through the networks at once."""

    blueprint: Prompt
    settings: Mapping[str, Any]
    together: int = 1

    def record(self, name: str) -> Record:
        """Of a picture of which nothing else is known yet."""
        parameters = {
            node: {key: value for key, value in entry["inputs"].items() if not isinstance(value, list) and value is not None}
            for node, entry in self.blueprint.items()
        }
        return Record(name, "", json_sha256(self.blueprint), dict(self.settings), seeds_of(self.blueprint), parameters)

    def made(self, record: Record) -> bool:
        """Whether the record was made in this same way."""
        return (record.workflow_sha256, record.settings) == (json_sha256(self.blueprint), self.settings)


def blueprint_of(prompt: Prompt, loader: str, input_name: str) -> Prompt:
    """The prompt without the one thing that differs between pictures."""
    entry = prompt[loader]
    return {**prompt, loader: {**entry, "inputs": {**entry["inputs"], input_name: None}}}


def run_batch(team: Team, batch: Batch, way: Way, resume: bool, overwrite: bool, report: Callable[[Record], None]) -> BatchSummary:
    """Every picture of the batch, a line in the manifest and a report for each; one that fails never stops the rest.

    With resume, pictures whose file, workflow, settings and results are unchanged are kept, the others done again. Lines are written
    as pictures are finished, and put in the order of the pictures at the end. Raises FileAccessError when results can no longer be
    written: then nothing half done is left, and the batch can be resumed.
    """
    make_folder(batch.target)
    # Where our manifest is, a file without a line is the result of a run killed between the two.
    may_replace = overwrite or (resume and (batch.target / NAME).exists())
    earlier = read_manifest(batch.target) if resume else {}
    kept = {name: record for name, record in earlier.items() if record.is_done(batch.target) and way.made(record)}
    write_manifest(batch.target, list(kept.values()))
    if resume:
        remove_left_staging(batch.target)
    progress = current_host().progress(len(batch.stems), "Pictures")
    try:
        with staging_folder(batch.target) as staging:
            run = _Run(batch, staging, way, kept, may_replace, report, progress)
            for place, answer in team.map("restore", run.tasks(), str):
                run.finish(place, answer)
        write_manifest(batch.target, [run.records[name] for name in batch.stems])
    except FileAccessError as error:
        raise FileAccessError(error.what, where=error.where, way_out=WAY_OUT) from error
    return run.summary


class _Run:
    """records: of the pictures that are finished, those kept from before among them. staging: where results are written first."""

    def __init__(
        self,
        batch: Batch,
        staging: Path,
        way: Way,
        kept: dict[str, Record],
        may_replace: bool,
        report: Callable[[Record], None],
        progress: Progress,
    ) -> None:
        self._batch, self._staging, self._may_replace = batch, staging, may_replace
        self._new, self._together = way.record(""), way.together
        self._report, self._progress = report, progress
        self.records = {name: record for name, record in kept.items() if name in batch.stems}
        self.summary = BatchSummary(not_pictures=batch.not_pictures)
        self._sent: list[list[tuple[Record, int]]] = []

    def tasks(self) -> Iterator[Task]:
        """A task for each picture that is not kept, or for several. Whatever cannot be read is finished at once."""
        for group in in_groups(self._pictures(), self._together):
            self._sent.append([about for about, _ in group])
            yield ([(record.input, content) for (record, _), content in group],)

    def _pictures(self) -> Iterator[tuple[tuple[Record, int], bytes]]:
        for name in self._batch.stems:
            record = replace(self._new, input=name)
            try:
                content, modified = _content(self._batch.source / name)
            except FileAccessError as error:
                self._settle(replace(record, error=str(error)))
                continue
            record = replace(record, input_sha256=hashlib.sha256(content).hexdigest())
            if name in self.records and self.records[name].input_sha256 == record.input_sha256:
                self.summary.kept += 1
                self._progress.advance()
                continue
            yield (record, modified), content

    def finish(self, place: int, answer: list[Restored] | str) -> None:
        """Put the results of a task where they belong; a text says why there are none."""
        sent = self._sent[place]
        results = [Restored(error=answer)] * len(sent) if isinstance(answer, str) else answer
        for (record, modified), restored in zip(sent, results, strict=True):
            self._settle(replace(record, error=restored.error) if restored.error else self._landed(record, modified, restored))

    def _landed(self, record: Record, modified: int, restored: Restored) -> Record:
        target = self._batch.target
        outputs = final_names([ending for ending, _ in restored.files], target, self._batch.stems[record.input])
        try:
            refuse_existing(outputs, self._may_replace)
        except KintsugiError as error:
            return replace(record, error=str(error))
        for path, (_, content) in zip(outputs, restored.files, strict=True):
            _require_folder(target)
            _write(path, content, modified, self._staging / f"result{path.suffix}")
        names = [path.relative_to(target).as_posix() for path in outputs]
        return replace(record, outputs=names, seconds=restored.seconds, metrics=restored.metrics)

    def _settle(self, record: Record) -> None:
        self.records[record.input] = record
        _require_folder(self._batch.target)
        append_record(self._batch.target, record)
        self._report(record)
        self.summary.failed += record.error is not None
        self.summary.done += record.error is None
        self._progress.advance()


def _content(path: Path) -> tuple[bytes, int]:
    """Bytes, and when they were written, in nanoseconds since 1970."""
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        raise FileAccessError(f"cannot be read: {error.strerror}.", where=str(path), way_out="Check its name and permissions.") from error


def _write(path: Path, content: bytes, modified: int, temporary: Path) -> None:
    """The file, as old as the picture that it was made of, whole under its name or not at all."""
    with writing_to(path):
        temporary.write_bytes(content)
        os.utime(temporary, ns=(modified, modified))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)


def _require_folder(target: Path) -> None:
    """A folder that went away, as a disk does that is unplugged, must not be made again on another disk."""
    if not (target / NAME).is_file():
        raise FileAccessError("the folder of the results is gone.", where=str(target))
