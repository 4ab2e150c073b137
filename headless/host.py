"""The host of the command line: the device and folders that a person chose, their progress bar, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch

from ..core.errors import BadValueError, Interrupted
from ..core.folders import Folders, default_models_directory
from ..core.runtime import DTYPES, LocalHost, Progress, best_device, best_dtype, using_host
from ..core.weights.locations import EXTRA_MODEL_PATHS, with_extra_model_paths
from .progress import ProgressDisplay

if TYPE_CHECKING:
    from .options import HostOptions


@dataclass
class CommandLineHost(LocalHost):
    """A LocalHost that shows progress on the display and stops at Ctrl-C."""

    display: ProgressDisplay = field(default_factory=ProgressDisplay)
    stop: StopRequest = field(default_factory=lambda: StopRequest())

    def progress(self, total: int, label: str) -> Progress:
        return self.display.steps(total, label, self.check_interrupted)

    def check_interrupted(self) -> None:
        if self.stop.requested:
            raise Interrupted


@dataclass
class StopRequest:
    """Whether Ctrl-C was pressed. The first one is noticed at the next check (before each node and each model call), so that
    nothing is left half done; the second one stops at once."""

    requested: bool = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Inside the block Ctrl-C is noted here. In another thread than the main one, which gets no signals: no change."""
        try:
            before = signal.signal(signal.SIGINT, self._note)
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def command_line_host(options: HostOptions, folders: Folders) -> Iterator[CommandLineHost]:
    """Everything inside the block runs on the host that the options describe."""
    device = chosen_device(options.device, options.cpu)
    with ProgressDisplay() as display, StopRequest().listening() as stop:
        host = CommandLineHost(device=device, dtype=chosen_dtype(options.dtype, device), folders=folders, display=display, stop=stop)
        with using_host(host):
            yield host


def chosen_device(name: str, cpu: bool) -> torch.device:
    """`auto`, or a device that torch knows and this machine has; BadValueError otherwise."""
    if cpu:
        return torch.device("cpu")
    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadValueError(f"there is no device {name!r}.", where="--device", way_out="Use auto, cpu, cuda, cuda:1 or mps.") from error
    if not _is_present(device):
        raise BadValueError(f"this machine has no {name}.", where="--device", way_out="Use --cpu, or leave --device out.")
    return device


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def chosen_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` or one of fp32, bf16, fp16; BadValueError otherwise."""
    if name == "auto":
        return best_dtype(device)
    if name not in DTYPES:
        raise BadValueError(f"there is no dtype {name!r}.", where="--dtype", way_out=f"Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def chosen_folders(options: HostOptions, input_directory: Path | None, output: Path) -> Folders:
    """Input and output folders as asked, models from the option, $KINTSUGI_MODELS or the user's data, and the extra paths.

    The extra_model_paths.yaml beside the models folder is read of itself, as ComfyUI reads the one beside its own.
    """
    models = options.models_directory or default_models_directory()
    folders = Folders(input=input_directory or Path.cwd(), output=output, models=models)
    beside = folders.models.parent / EXTRA_MODEL_PATHS
    extra = [*([beside] if beside.is_file() else []), *options.extra_model_paths]
    return with_extra_model_paths(folders, extra) if extra else folders
