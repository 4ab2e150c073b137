"""A FluxGen worker without a Flux: what it draws is noise, everything else is real; and what a run's folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kintsugi.core.imaging.png_bytes import to_png
from kintsugi.core.methods.fluxgen import Drawing
from kintsugi.core.runtime import LocalHost
from kintsugi.headless.fluxgen_worker import Order, Worker

ORDER = Order(
    count=9, seed=3, drawing=Drawing(64, 32, 1), prompts=("", "a cat"), metrics="sharpness, noise", percentile=15, scale=2, shard_size=3
)


class QuickWorker(Worker):
    """calls: how often each method was called."""

    def __init__(self, order: Order = ORDER) -> None:
        super().__init__(order, LocalHost(device=torch.device("cpu")))
        self.calls = {"draw": 0, "score": 0, "pair": 0}

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "weights": "noise"}

    def draw(self, index: int) -> tuple[bytes, int, int]:
        self.calls["draw"] += 1
        noise = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(self._order.seed_of(index)))
        return to_png(noise), 48, 32

    def score(self, where: str, png: bytes, metrics: tuple[str, ...]) -> dict[str, float | None]:
        self.calls["score"] += 1
        return super().score(where, png, metrics)

    def pair(self, where: str, png: bytes, index: int) -> tuple[bytes, bytes, Any]:
        self.calls["pair"] += 1
        return super().pair(where, png, index)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in the folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
