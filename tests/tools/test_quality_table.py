from __future__ import annotations

import importlib.util
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from kintsugi.core.degradation.fixed_modes import MODES
from rich.console import Console

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def quality_table() -> ModuleType:
    """tools/quality.py, which is a script beside the package."""
    spec = importlib.util.spec_from_file_location("quality_table", Path(__file__).parents[2] / "tools" / "quality.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["quality_table"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(quality_table: ModuleType) -> list[np.ndarray]:
    return [photo[64:192, 96:224] for photo in quality_table.validation_photos()[:2]]


def test_photos_of_the_wheel_are_the_five_validation_photos(quality_table: ModuleType) -> None:
    shapes = [photo.shape for photo in quality_table.validation_photos()]
    assert shapes == [(512, 512, 3), (400, 600, 3), (296, 448, 3), (424, 640, 3), (496, 736, 3)]


def test_doing_nothing_gains_nothing_and_misses_the_gates(quality_table: ModuleType, photos: list[np.ndarray]) -> None:
    rows = quality_table.measure_modes(photos, lambda picture: picture)
    assert len(rows) == 3 * len(MODES)
    missed = quality_table.missed_gates(rows)
    assert [gate for gate in missed if "+0.00 dB" in gate and "wanted" in gate] == [gate for gate in missed if "wanted" in gate]
    assert len([gate for gate in missed if "wanted" in gate]) == 3
    console = Console(width=100, file=StringIO())
    quality_table.show(rows, console)
    assert "TV + unsharp" in console.file.getvalue() and "+0.00" in console.file.getvalue()


def test_perfect_restoration_meets_every_gate(quality_table: ModuleType, photos: list[np.ndarray]) -> None:
    def half_way(name: str, psnr: float, ssim: float, grid: float) -> list[object]:
        return [quality_table.Row(mode, name, psnr, ssim, 1.0, 1.0, grid) for mode in MODES]

    better = half_way("input", 26.0, 0.7, 1) + half_way("TV + unsharp", 26.2, 0.7, 1) + half_way("restored", 27.0, 0.8, 1.2)
    assert quality_table.missed_gates(better) == []
    dotted = better[:6] + half_way("restored", 27.0, 0.8, 2.5)
    assert len(quality_table.missed_gates(dotted)) == 3 and "grid" in quality_table.missed_gates(dotted)[0]


def test_table_in_the_readme_is_replaced_and_nothing_else(quality_table: ModuleType) -> None:
    rows = [quality_table.Row("same", name, psnr, 0.7, 1.0, 1.0, 1.5) for name, psnr in (("input", 26.0), ("restored", 26.9))]
    table = quality_table.as_markdown(rows)
    assert table.splitlines()[-1] == "| same | restored | 26.90 | +0.90 | 0.7000 | 1.00 | 1.00 | 1.50 |"
    readme = quality_table.README.read_text(encoding="utf-8")
    begin, end = quality_table.MARKS
    updated = quality_table.with_table(readme, table)
    assert updated.partition(begin)[0] == readme.partition(begin)[0]
    assert updated.partition(end)[2] == readme.partition(end)[2]
    assert updated.partition(begin)[2].partition(end)[0] == table
    assert quality_table.with_table(updated, table) == updated
