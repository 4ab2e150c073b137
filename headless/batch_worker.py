"""What a batch asks of its workers: a picture's bytes in, the bytes of its results out. They share no folder with whoever asks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..core.errors import KintsugiError, PictureError
from ..core.graph.documents import Document
from ..core.imaging.files_apart import FilesApart, using_files_apart
from ..core.runtime import LocalHost, using_host
from .changes import Changes
from .host import chosen_device, chosen_dtype, chosen_folders
from .options import HostOptions
from .run import WorkflowResult, WorkflowRunner

# The nodes whose photo can be read before the graph runs.
LOADS_APART = "KintsugiLoadPhoto"


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


@dataclass(frozen=True)
class Recruit:
    """Makes worker number n of another process or machine. threads: those that every worker computes with."""

    order: Order
    options: HostOptions
    threads: int

    def __call__(self, number: int) -> Worker:
        torch.set_num_threads(self.threads)
        device = chosen_device(self.options.device, self.options.cpu)
        if device == torch.device("cuda"):
            device = torch.device("cuda", number % torch.cuda.device_count())
        folders = chosen_folders(self.options, None, Path.cwd())
        return Worker(self.order, LocalHost(device, chosen_dtype(self.options.dtype, device), folders=folders))


class Worker:
    """Holds what the workflow loads. Several threads may restore at once: one computes while others read and write files."""

    def __init__(self, order: Order, host: LocalHost) -> None:
        self._order, self._host = order, host
        self._computing = threading.Lock()
        with using_host(host):
            self._runner = WorkflowRunner(order.document, order.changes)

    def describe(self) -> dict[str, Any]:
        """What decides the last bits of a result beside the workflow."""
        return {
            "device": self._host.device.type,
            "dtype": str(self._host.dtype).removeprefix("torch."),
            "micro_batch": self._host.micro_batch,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def restore(self, name: str, content: bytes) -> Restored:
        """name: of the picture below the input folder. What a person's picture is to blame for is told in the result."""
        with using_host(self._host), TemporaryDirectory(prefix="kintsugi-") as place, using_files_apart() as apart:
            photo, written = Path(place, "photo", PurePosixPath(name).name).resolve(), Path(place, "written")
            try:
                return self._restored(name, content, photo, written, apart)
            except KintsugiError as error:
                return Restored(error=str(error).replace(str(photo), name))
            except OSError as error:
                return Restored(error=f"{place}: the temporary folder cannot be used ({error.strerror}). Free some space there.")

    def _restored(self, name: str, content: bytes, photo: Path, written: Path, apart: FilesApart) -> Restored:
        began = time.perf_counter()
        for folder in (photo.parent, written):
            folder.mkdir()
        photo.write_bytes(content)
        if self._runner.prompt[self._order.loader]["class_type"] == LOADS_APART:
            apart.read(photo)
        read = time.perf_counter()
        with self._computing:
            result = self._run(name, photo, written)
        computed = time.perf_counter()
        apart.write()
        files = [(path.suffix, path.read_bytes()) for path in result.files]
        seconds = read - began + result.seconds + time.perf_counter() - computed
        return Restored(files, round(seconds, 3), result.metrics)

    def _run(self, name: str, photo: Path, written: Path) -> WorkflowResult:
        # Named by its place in the folder, so that no two pictures look alike to the cache of results.
        granting = replace(self._host.folders, granted={name: photo})
        result = self._runner.run_into(written, {self._order.loader: photo}, granting)
        if not result.files:
            raise PictureError("the workflow saved no picture.", way_out="Use one with a Save Photo or Save Image node.")
        return result
