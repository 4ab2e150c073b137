"""Which pictures of a pool are good enough: on every measure at or above a percentile of the whole pool.

FluxGen keeps what is "within the top 95%" by CLIP-IQA, MANIQA and MUSIQ each ("Acquire and then Adapt", arXiv 2504.15159); read here
as a score not below the 5th percentile, on all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from .errors import BadValueError, MissingPackageError
from .protocols import FLUXIR
from .quality import DEFAULT_WITHOUT_REFERENCE, find_metric, parse_metrics

log = logging.getLogger("kintsugi")

PERCENTILE = 5.0
# The three that the paper selects by and reports.
PAPER_METRICS = tuple(column.metric for column in FLUXIR.columns if not column.needs_reference)


@dataclass(frozen=True)
class Bound:
    """The worst score that passes, that one included."""

    value: float
    higher_is_better: bool

    def admits(self, score: float) -> bool:
        """False for a score that is no finite number as well."""
        return isfinite(score) and (score >= self.value if self.higher_is_better else score <= self.value)

    def __str__(self) -> str:
        return f"{'at least' if self.higher_is_better else 'at most'} {self.value:.4f}"


@dataclass(frozen=True)
class Selection:
    """kept: places in the pool, ascending. bounds: by measure."""

    kept: tuple[int, ...]
    bounds: Mapping[str, Bound]


def selection_metrics(text: str) -> dict[str, bool]:
    """Whether more is better, by measure, for names as parse_metrics() takes them; empty text chooses the paper's three.

    Where pyiqa does not give those, measures without weights stand in, with a warning. More of a measure that is neither good nor bad
    by itself (sharpness, colorfulness) counts as better. Raises BadValueError for a name that is unknown or needs a reference.
    """
    names: Sequence[str] = parse_metrics(text, has_reference=False) if text.strip() else PAPER_METRICS
    try:
        return {name: find_metric(name).higher_is_better is not False for name in names}
    except MissingPackageError as error:
        if text.strip():
            raise
        stand_ins = ", ".join(DEFAULT_WITHOUT_REFERENCE)
        log.warning("Selecting by %s, since %s are not there: %s", stand_ins, ", ".join(PAPER_METRICS), error.what)
        return selection_metrics(stand_ins)


def select(pool: Sequence[Mapping[str, float]], better: Mapping[str, bool], percentile: float = PERCENTILE) -> Selection:
    """The pictures whose score is on no measure worse than that percentile (0..100) of the pool, counted from the worst.

    better: whether more is better, by measure. Percentiles lie between neighbouring scores in proportion, as numpy has them; equal
    scores stay or go together, and a pool of one is kept. A score that is not finite counts in no percentile and is never kept.
    Raises BadValueError for another percentile and for a measure without any finite score.
    """
    if not 0 <= percentile <= 100:
        raise BadValueError(f"The percentile is {percentile:g}, expected 0 to 100.", way_out="5 drops the worst 5 % by each measure.")
    bounds = {name: _bound(name, [row[name] for row in pool], higher, percentile) for name, higher in better.items()}
    kept = (place for place, row in enumerate(pool) if all(bound.admits(row[name]) for name, bound in bounds.items()))
    return Selection(tuple(kept), bounds)


def _bound(name: str, scores: Sequence[float], higher_is_better: bool, percentile: float) -> Bound:
    finite = [score for score in scores if isfinite(score)]
    if not finite:
        raise BadValueError(f"{name} has no finite score for any picture of the pool.", way_out="Select by other measures.")
    return Bound(float(np.percentile(finite, percentile if higher_is_better else 100 - percentile)), higher_is_better)
