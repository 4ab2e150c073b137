"""What a FluxGen run asks of its workers: pictures, their scores, and pairs, each a function of what is asked alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from ..core.degradation.pipeline import Parameters
from ..core.imaging.png_bytes import from_png, to_png
from ..core.methods.fluxgen import Drawing, draw_record, make_pair
from ..core.models.offload import Offload
from ..core.models.prior import Prior
from ..core.quality import measure, pyiqa_model
from ..core.runtime import LocalHost, using_host
from ..core.selection import PERCENTILE, selection_metrics
from ..core.weights.bases import search_base
from ..core.weights.nf4 import Quantization
from ..core.weights.priors import load_prior
from .recruit import computing_on

FAMILY, EMBEDDED = "flux", "embedded"
SEEDS = 2**63


@dataclass(frozen=True)
class Order:
    """What a person asks for. prompts: record k has number k, and again from the first; metrics: as selection_metrics() takes them;
    percentile: of each measure, below which a picture is dropped; scale: how many times smaller low quality is; shard_size: pairs."""

    count: int
    seed: int = 0
    drawing: Drawing = field(default_factory=Drawing)
    prompts: tuple[str, ...] = ("",)
    metrics: str = ""
    percentile: float = PERCENTILE
    scale: int = 4
    shard_size: int = 1000
    weights: str = "auto"
    offload: Offload = "none"
    quantization: Quantization = "none"

    def seed_of(self, index: int) -> int:
        """Of record `index`, from 0."""
        return (self.seed + index) % SEEDS

    def prompt_of(self, index: int) -> str:
        """Of record `index`."""
        return self.prompts[index % len(self.prompts)]


class Worker:
    """Holds the prior while pictures are drawn, and what measures need afterwards. Every method runs on the worker's host."""

    def __init__(self, order: Order, host: LocalHost) -> None:
        self._order = order
        # One picture fills a device, and rows that only pad a micro-batch would cost as much again.
        self._host = replace(host, micro_batch=1)
        self._prior: Prior | None = None

    def describe(self) -> dict[str, Any]:
        """What is found here and decides results: the prior's name, whether more is better by measure, and how is computed.

        Raises WeightsError and BadValueError for weights and measures that cannot be used.
        """
        with using_host(self._host) as host:
            metrics = selection_metrics(self._order.metrics)
            # Large networks, which would lie beside Flux till it is done.
            pyiqa_model.cache_clear()
            return {
                "weights": _found_weights(self._order.weights),
                "metrics": metrics,
                **computing_on(host),
            }

    def draw(self, index: int) -> tuple[bytes, int, int]:
        """Picture `index` of the pool as PNG, its width and height."""
        order = self._order
        with using_host(self._host):
            if self._prior is None:
                self._prior = load_prior(FAMILY, order.weights, offload=order.offload, quantization=order.quantization)
            picture = draw_record(self._prior, order.prompt_of(index), order.seed_of(index), order.drawing)
            return to_png(picture), picture.shape[2], picture.shape[1]

    def score(self, where: str, png: bytes, metrics: tuple[str, ...]) -> dict[str, float | None]:
        """Value by measure of a picture of the pool, None for one that is no finite number. where: the file, for messages."""
        self._prior = None
        with using_host(self._host):
            values = measure(from_png(png, where).movedim(3, 1), None, metrics)
            return {name: value if isfinite(value) else None for name, value in values.items()}

    def pair(self, where: str, png: bytes, index: int) -> tuple[bytes, bytes, Parameters]:
        """High and low quality as PNG of a picture of the pool, and what degraded it."""
        with using_host(self._host):
            pair = make_pair(from_png(png, where), self._order.seed_of(index), self._order.scale)
            return to_png(pair.high_quality), to_png(pair.low_quality), pair.parameters


def _found_weights(name: str) -> str:
    base = None if name == EMBEDDED else search_base(FAMILY, name)
    return EMBEDDED if base is None else base.name
