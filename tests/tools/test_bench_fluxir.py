"""The benchmark of FluxIR measures a network that is steered, and the same one that is not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """tools/bench_fluxir.py, which is a script beside the package."""
    spec = importlib.util.spec_from_file_location("bench_fluxir", Path(__file__).parents[2] / "tools" / "bench_fluxir.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_fluxir"] = module
    spec.loader.exec_module(module)
    return module


def test_the_two_ways_differ_and_neither_changes_the_other(bench: ModuleType) -> None:
    ways = bench.built(bench.SUBJECTS["tiny"])
    plain, steered = ways.plain(), ways.steered()
    assert not torch.allclose(plain, steered, atol=1e-3)
    assert torch.equal(ways.plain(), plain) and torch.equal(ways.steered(), steered)


def test_what_is_measured_has_all_of_fluxs_blocks_and_a_width_of_512(bench: ModuleType) -> None:
    changes = bench.SUBJECTS["512 wide, 256 x 256"].changes
    assert changes["num_attention_heads"] * changes["attention_head_dim"] == 512
    assert not {"num_layers", "num_single_layers"} & set(changes)


def test_a_row_per_way_and_one_of_the_difference_is_printed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    rows = bench.rows_of("tiny")
    assert [row[1] for row in rows] == ["Flux alone", "with the adapter", "more"]
    assert rows[0][2].endswith("CPU s") and rows[2][2].endswith("(at most 6%)")


def test_at_full_size_the_adapter_adds_a_fiftieth_of_the_operations(bench: ModuleType) -> None:
    ways = bench.built(bench.SUBJECTS["FLUX.1-dev, 1024 x 1024"])
    plain, steered = bench.operations(ways.plain), bench.operations(ways.steered)
    assert 0.018 < steered / plain - 1 < 0.02
    assert ways.adapter_bytes == 4 * 409_943_872
