"""What every check on a GPU shares: the device's clock and memory, exact arithmetic, and the page of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from kintsugi.core.errors import KintsugiError
from kintsugi.core.runtime import DTYPES
from kintsugi.headless.console import say

GIBIBYTE = 2**30


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def forget_peak(device: torch.device) -> None:
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def held_memory(device: torch.device) -> int | None:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


@contextmanager
def exact_convolutions() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


Cells = tuple[str, ...]


@dataclass
class Page:
    """Tables, and what went wrong: a row that fails says so, and the others go on."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    columns: int = 0

    def table(self, title: str, text: str, heads: Cells) -> None:
        self.columns = len(heads)
        self.lines += ["", f"## {title}", "", text, "", line(heads), line(("---", "---", *("--:" for _ in heads[2:])))]

    def row(self, name: str, case: str, measure: Callable[[], Cells]) -> None:
        try:
            cells = measure()
        except (KintsugiError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            self.failures.append(f"{name}, {case}: {said}")
            cells = (f"failed: {said}", *[""] * (self.columns - 3))
        self.lines.append(line((name, case, *cells)))
        say(f"{name}, {case}: {', '.join(cells)}")


def line(cells: Cells) -> str:
    return f"| {' | '.join(cells)} |"


def gibibytes(size: int | None) -> str:
    return "not counted" if size is None else f"{size / GIBIBYTE:.2f}"


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, known in DTYPES.items() if known == dtype)
