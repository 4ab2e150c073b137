"""How a worker is made where it will work: on its own device, with as many threads as all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.runtime import Host, LocalHost
from .host import chosen_device, chosen_dtype, chosen_folders
from .options import HostOptions


@dataclass(frozen=True)
class Recruit:
    """Makes worker number n of another process or machine: worker(order, host). threads: those that every worker computes with."""

    worker: Callable[[Any, LocalHost], Any]
    order: Any
    options: HostOptions
    threads: int

    def __call__(self, number: int) -> Any:
        torch.set_num_threads(self.threads)
        device = chosen_device(self.options.device, self.options.cpu)
        if device == torch.device("cuda"):
            device = torch.device("cuda", number % torch.cuda.device_count())
        folders = chosen_folders(self.options, None, Path.cwd())
        return self.worker(self.order, LocalHost(device, chosen_dtype(self.options.dtype, device), folders=folders))


def computing_on(host: Host) -> dict[str, Any]:
    """What decides the last bits of a result beside what is computed, as JSON."""
    return {
        "device": host.device.type,
        "dtype": str(host.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
