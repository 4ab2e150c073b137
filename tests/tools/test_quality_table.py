from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kintsugi.core.degradation.fixed_modes import MODES
from kintsugi.core.weights import embedded
from kintsugi.headless.cli import run_command_line
from PIL import Image
from rich.console import Console

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def quality_table() -> Iterator[ModuleType]:
    """tools/quality.py, which is a script beside the package, and finds others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
        yield importlib.import_module("quality")


@pytest.fixture(scope="module")
def methods(quality_table: ModuleType) -> ModuleType:
    """tools/quality_methods.py, once tools/ can be imported from."""
    return importlib.import_module("quality_methods")


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


def method_rows(quality_table: ModuleType, psnr: float, swd: float, title: str) -> list[Any]:
    return [
        quality_table.Row("same", name, value, 0.7, distance, 1.0, 1.0)
        for name, value, distance in (("input", 27.0, 10.0), (title, psnr, swd))
    ]


@pytest.mark.parametrize(
    ("title", "psnr", "swd", "faults"),
    [
        ("TSD-SR", 27.0, 20.0, []),
        ("TSD-SR", 26.9, 1.0, ["gains -0.10 dB"]),
        ("InstaRevive without SwinIR", 26.5, 1.0, ["gains -0.50 dB"]),
        ("InstantIR, 100 steps", 24.5, 9.0, []),
        ("InstantIR, 100 steps", 30.0, 9.1, ["SWD is 91% of the input's"]),
        ("FluxIR", 24.4, 9.1, ["SWD is 91% of the input's", "gains -2.60 dB"]),
    ],
)
def test_a_method_misses_its_gate_for_what_its_gate_asks(
    quality_table: ModuleType, methods: ModuleType, title: str, psnr: float, swd: float, faults: list[str]
) -> None:
    rows = method_rows(quality_table, psnr, swd, title)
    missed = methods.missed_method_gates(rows)
    assert len(missed) == bool(faults) and all(f"{title}: " in missed[0] and fault in missed[0] for fault in faults)
    assert methods.method_cells(rows)[1][-1] == ("missed" if faults else "met")


def test_a_row_that_is_only_told_shows_that_it_misses_and_breaks_no_gate(quality_table: ModuleType, methods: ModuleType) -> None:
    rows = method_rows(quality_table, 30.0, 9.1, "InstantIR")
    assert methods.method_cells(rows)[1][-1] == "missed" and methods.missed_method_gates(rows) == []


def test_every_embedded_method_is_measured(quality_table: ModuleType, methods: ModuleType) -> None:
    assert {quality_table.DEFAULT, *methods.METHODS} == {*embedded.GENERATORS, "instantir", "fluxir"}


def test_a_workflow_restores_as_the_command_line_does(quality_table: ModuleType, photos: list[np.ndarray], tmp_path: Path) -> None:
    measuring = importlib.import_module("quality_measure")
    small = [photo[:64, :48] for photo in photos]
    with measuring.workflow_restorer(quality_table.DEFAULT_WORKFLOW) as restore:
        restored = [restore(picture) for picture in small]
    Image.fromarray(small[1]).save(tmp_path / "photo.png")
    arguments = ["restore", str(tmp_path / "photo.png"), "-o", str(tmp_path / "restored.png"), "--embedded", "--scale", "1", "--cpu"]
    assert run_command_line(arguments) == 0
    assert np.array_equal(restored[1], np.asarray(Image.open(tmp_path / "restored.png")))
    assert not np.array_equal(restored[0], small[0])


def test_a_bypassed_node_changes_what_comes_out(methods: ModuleType, photos: list[np.ndarray]) -> None:
    measuring = importlib.import_module("quality_measure")
    results = []
    for workflow in methods.METHODS["instarevive"].workflows.values():
        with measuring.workflow_restorer(workflow) as restore:
            results.append(restore(photos[0][:64, :64]))
    assert results[0].shape == results[1].shape == (64, 64, 3) and not np.array_equal(*results)


def test_weights_of_a_persons_own_are_measured_in_the_workflow(methods: ModuleType, photos: list[np.ndarray], tmp_path: Path) -> None:
    measuring = importlib.import_module("quality_measure")
    plain = methods.METHODS["tsd-sr"].workflows["TSD-SR"]
    file = Path(shutil.copy(embedded.GENERATORS["tsd-sr"], tmp_path / "mine.safetensors"))
    own = replace(plain, student=measuring.OwnStudent("Load TSD-SR", "tsd-sr", file))
    results = []
    for workflow in (plain, own):
        with measuring.workflow_restorer(workflow) as restore:
            results.append(restore(photos[0][:64, :64]))
    assert np.array_equal(*results)


def test_one_method_is_reported_as_json(
    quality_table: ModuleType, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality_table, "validation_photos", lambda: photos[:1])
    status = quality_table.main(["--method", "tsd-sr", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["methods"]] == ["input", "TSD-SR"] and found["default"] == []
    assert status == (1 if found["missed"] else 0)


def test_a_part_is_never_written_into_the_readme(quality_table: ModuleType) -> None:
    with pytest.raises(SystemExit):
        quality_table.main(["--method", "tsd-sr", "--update-readme"])


def test_both_tables_have_their_place_in_the_readme(quality_table: ModuleType) -> None:
    readme = quality_table.README.read_text(encoding="utf-8")
    updated = quality_table.with_table(readme, "| a |\n", quality_table.METHOD_MARKS)
    assert quality_table.with_table(updated, "| b |\n").count("| a |\n<!-- /methods table -->") == 1
