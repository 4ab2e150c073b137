"""The benchmark of the one-step networks compares the same networks, built both ways."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kintsugi.core.models.folding import memory_of
from kintsugi.core.weights.generators import READERS


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """tools/bench_one_step.py, which is a script beside the package."""
    spec = importlib.util.spec_from_file_location("bench_one_step", Path(__file__).parents[2] / "tools" / "bench_one_step.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_one_step"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", READERS)
def test_both_ways_of_every_method_say_the_same_and_ours_holds_less(bench: ModuleType, method: str) -> None:
    published, ours = (bench.built(method, "tiny", way) for way in bench.WAYS)
    expected = published.call()
    assert (ours.call() - expected).abs().max() <= bench.AGREEMENT * expected.abs().max()
    assert memory_of(ours.network) < memory_of(published.network)


def test_a_row_per_way_and_one_of_ratios_is_printed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "peak_of_a_process", lambda method, size, way: 1000 if way == "published" else 500)
    rows = bench.rows_of("tsd-sr", "tiny")
    assert [row[2] for row in rows] == ["published", "ours", "ratio"]
    assert rows[0][5] == "1.0 kB" and rows[2][5] == "0.50" and float(rows[2][4]) < 0.65
