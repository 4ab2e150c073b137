"""What a pool keeps: exactly what the percentiles say, with ties, tiny pools and scores that are no numbers."""

from __future__ import annotations

import logging
from math import inf, nan
from statistics import quantiles

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kintsugi.core import quality
from kintsugi.core.errors import BadValueError, MissingPackageError
from kintsugi.core.quality import Metric
from kintsugi.core.selection import PAPER_METRICS, select, selection_metrics


def kept(scores: list[float], percentile: float = 5.0, higher_is_better: bool = True) -> tuple[int, ...]:
    return select([{"m": score} for score in scores], {"m": higher_is_better}, percentile).kept


def test_the_worst_twentieth_goes() -> None:
    scores = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    assert kept(scores) == tuple(place for place, score in enumerate(scores) if score >= 2)
    assert kept(scores, higher_is_better=False) == tuple(place for place, score in enumerate(scores) if score < 38)
    assert kept(scores, 25) == tuple(place for place, score in enumerate(scores) if score >= 10)


def test_the_bound_is_the_percentile_between_neighbours_as_statistics_has_it() -> None:
    scores = torch.rand(37, generator=torch.Generator().manual_seed(1)).tolist()
    bounds = select([{"m": score} for score in scores], {"m": True}, 5).bounds
    assert bounds["m"].value == pytest.approx(quantiles(scores, n=20, method="inclusive")[0])
    bounds = select([{"m": score} for score in scores], {"m": False}, 5).bounds
    assert bounds["m"].value == pytest.approx(quantiles(scores, n=20, method="inclusive")[-1])
    assert str(bounds["m"]).startswith("at most 0.9")


def test_every_measure_must_pass() -> None:
    pool = [{"a": place, "b": (7 * place) % 20} for place in range(20)]
    chosen = select(pool, {"a": True, "b": False}, 5)
    worst = next(place for place, row in enumerate(pool) if row["b"] == 19)
    assert chosen.kept == tuple(place for place in range(1, 20) if place != worst)
    assert chosen.bounds["a"].value == pytest.approx(0.95) and chosen.bounds["b"].value == pytest.approx(18.05)


def test_equal_scores_stay_or_go_together() -> None:
    assert kept([3.0] * 7) == (0, 1, 2, 3, 4, 5, 6)
    assert kept([1.0, 1.0, 1.0, 2.0], 5) == (0, 1, 2, 3)
    assert kept([1.0, 1.0, 2.0, 3.0], 50) == (2, 3)


def test_tiny_pools() -> None:
    assert kept([4.0]) == (0,)
    assert kept([4.0, 5.0]) == (1,) and kept([4.0, 5.0], higher_is_better=False) == (0,)
    assert kept([4.0, 5.0], 0) == (0, 1)
    assert kept([4.0, 5.0, 6.0], 100) == (2,)


def test_a_score_that_is_no_number_is_dropped_and_moves_no_bound() -> None:
    scores = [float(score) for score in range(21)]
    assert select([{"m": score} for score in [*scores, nan, inf, -inf]], {"m": True}, 5) == select(
        [{"m": s} for s in scores], {"m": True}, 5
    )
    with pytest.raises(BadValueError, match="m has no finite score"):
        kept([nan, inf])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 100), st.booleans())
def test_no_dropped_picture_is_as_good_as_a_kept_one_and_few_enough_go(scores: list[int], percentile: int, higher: bool) -> None:
    chosen = set(kept([float(score) for score in scores], percentile, higher))
    sign = 1 if higher else -1
    dropped = [sign * score for place, score in enumerate(scores) if place not in chosen]
    assert chosen
    assert not dropped or max(dropped) < min(sign * scores[place] for place in chosen)
    assert len(dropped) <= percentile / 100 * (len(scores) - 1) + 1


def test_a_percentile_is_one_of_a_hundred() -> None:
    with pytest.raises(BadValueError, match="The percentile is 101, expected 0 to 100"):
        kept([1.0], 101)


def test_measures_of_either_direction_can_select() -> None:
    assert selection_metrics("noise, colorfulness,sharpness") == {"noise": False, "colorfulness": True, "sharpness": True}
    with pytest.raises(BadValueError, match="psnr compare with a reference"):
        selection_metrics("psnr")
    with pytest.raises(BadValueError, match="'taste' is no measure"):
        selection_metrics("taste")


def test_without_pyiqa_measures_without_weights_stand_in_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kintsugi"):
        assert selection_metrics("") == {"sharpness": True, "noise": False, "blockiness": False}
    assert "Selecting by sharpness, noise, blockiness, since pyiqa:clipiqa+_vitL14_512, pyiqa:musiq" in caplog.text
    with pytest.raises(MissingPackageError, match="pyiqa"):
        selection_metrics("pyiqa:musiq")


def test_with_pyiqa_the_papers_three_select(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "pyiqa_metric", lambda name: Metric(float, False, True))
    assert selection_metrics("") == dict.fromkeys(PAPER_METRICS, True)
    assert set(PAPER_METRICS) == {"pyiqa:clipiqa+_vitL14_512", "pyiqa:maniqa-pipal", "pyiqa:musiq"}
