"""What a batch asks of its workers: a picture's bytes in, the bytes of its results out. They share no folder with whoever asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ..core.errors import KintsugiError, PictureError
from ..core.graph.documents import Document
from ..core.graph.validation import validate
from ..core.imaging.files_apart import FilesApart, using_files_apart
from ..core.imaging.reading import read_photo
from ..core.randomness import one_seed_for_all
from ..core.runtime import LocalHost, using_host
from .batch_groups import LOADS_APART, parted, parting_nodes, values_of_all
from .changes import Changes, with_files
from .recruit import computing_on
from .run import Feed, WorkflowResult, WorkflowRunner

# What the networks made of a picture, by node and output, and in how many seconds.
Parted = tuple[dict[str, list[Any]], float]


@dataclass(frozen=True)
class Order:
    """What is done to every picture. loader: id of the node that loads it."""

    document: Document
    changes: Changes
    loader: str


@dataclass(frozen=True)
class Restored:
    """files: ending and content of each result, in the order of the nodes. seconds: of work. metrics: as in WorkflowResult."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    seconds: float = 0.0
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    error: str | None = None


class Worker:
    """Holds what the workflow loads. Several threads may restore at once: one computes while others read and write files."""

    def __init__(self, order: Order, host: LocalHost) -> None:
        self._order, self._host = order, host
        self._computing = threading.Lock()
        with using_host(host):
            self._runner = WorkflowRunner(order.document, order.changes)
            # Of its own, since a run forgets the models that it does not need.
            self._parted_runner = WorkflowRunner(order.document, order.changes)
            # Numbers of the types that a whole run would give them, since files tell the prompt that made them.
            validate(self._parted_runner.prompt, self._parted_runner.registry)
        self._parting = parting_nodes(self._runner.prompt, self._runner.registry, order.loader)

    def describe(self) -> dict[str, Any]:
        """What decides the last bits of a result beside the workflow."""
        return {**computing_on(self._host), "micro_batch": self._host.micro_batch}

    def restore(self, pictures: Sequence[tuple[str, bytes]]) -> list[Restored]:
        """pictures: names below the input folder, with content. What a person's picture is to blame for is told in its result."""
        with using_host(self._host):
            together = self._together(pictures) if len(pictures) > 1 else None
            return [self._one(*picture, *(together[index] if together else ({}, 0.0))) for index, picture in enumerate(pictures)]

    def _together(self, pictures: Sequence[tuple[str, bytes]]) -> list[Parted] | None:
        """What the networks make of all pictures at once; None where each has to go alone, be it to tell whose fault an error is."""
        began = time.perf_counter()
        try:
            with TemporaryDirectory(prefix="kintsugi-") as place:
                photos = [read_photo(_written(Path(place, str(index)), *picture)) for index, picture in enumerate(pictures)]
            if len({photo.picture.shape for photo in photos}) > 1:
                return None
            feed = Feed({self._order.loader: values_of_all(photos)}, self._parting, self._parting)
            with self._computing, one_seed_for_all():
                _, result = self._runner.run_prompt(self._runner.prompt, self._host.folders, feed)
        except (KintsugiError, OSError):
            return None
        seconds = (time.perf_counter() - began) / len(pictures)
        return [(parted(result, self._parting, index), seconds) for index in range(len(pictures))]

    def _one(self, name: str, content: bytes, given: Mapping[str, Sequence[Any]], seconds: float) -> Restored:
        """given: what the networks have made of it, in so many seconds."""
        with TemporaryDirectory(prefix="kintsugi-") as place, using_files_apart() as apart:
            try:
                photo = _written(Path(place, "photo"), name, content)
                made = self._restored(name, photo, Path(place, "written"), given, apart)
                return replace(made, seconds=round(made.seconds + seconds, 3))
            except KintsugiError as error:
                return Restored(error=str(error).replace(str(Path(place, "photo").resolve() / PurePosixPath(name).name), name))
            except OSError as error:
                return Restored(error=f"{place}: the temporary folder cannot be used ({error.strerror}). Free some space there.")

    def _restored(self, name: str, photo: Path, written: Path, given: Mapping[str, Sequence[Any]], apart: FilesApart) -> Restored:
        began = time.perf_counter()
        written.mkdir()
        if self._runner.prompt[self._order.loader]["class_type"] == LOADS_APART:
            apart.read(photo)
        read = time.perf_counter()
        with self._computing:
            result = self._run(name, photo, written, given)
        computed = time.perf_counter()
        apart.write()
        files = [(path.suffix, path.read_bytes()) for path in result.files]
        return Restored(files, read - began + result.seconds + time.perf_counter() - computed, result.metrics)

    def _run(self, name: str, photo: Path, written: Path, given: Mapping[str, Sequence[Any]]) -> WorkflowResult:
        runner = self._parted_runner if given else self._runner
        # Named by its place in the folder, so that no two pictures look alike to the cache of results.
        folders = replace(self._host.folders, output=written, granted={name: photo})
        prompt, folders = with_files(runner.prompt, runner.registry, folders, {self._order.loader: photo})
        result, _ = runner.run_prompt(prompt, folders, Feed(given))
        if not result.files:
            raise PictureError("the workflow saved no picture.", way_out="Use one with a Save Photo or Save Image node.")
        return result


def _written(folder: Path, name: str, content: bytes) -> Path:
    """A file of that name in a new folder."""
    folder.mkdir()
    path = folder.resolve() / PurePosixPath(name).name
    path.write_bytes(content)
    return path
