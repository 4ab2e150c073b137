from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.models.offload import OFFLOADS
from kintsugi.core.runtime import DTYPES
from kintsugi.core.weights.generators import READERS

PARAMETERS = {"gendr": 865_979_856, "tsd-sr": 2_028_328_000, "instarevive": 610_856_096}


TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def gpu_check() -> Iterator[ModuleType]:
    """tools/gpu_check.py, which is a script beside the package, and finds others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module("gpu_check")


def test_small_methods_on_a_cpu_fill_every_table(gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "TINY_SIDES", (32, 64))
    for module in ("gpu_check", "gpu_check_instantir"):
        monkeypatch.setattr(f"{module}.REPEATS", 1)
    monkeypatch.setattr(gpu_check, "ROWS", (1,))
    page = tmp_path / "gpu.md"
    assert gpu_check.main(["--device", "cpu", "--tiny", "--output", str(page)]) == 0
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cases = {(row[0].removeprefix("| "), row[1]) for row in rows}
    assert {*product(READERS, OFFLOADS), *product(READERS, DTYPES)} <= cases
    fp32 = [row for row in rows if row[1] == "fp32" and row[2] == "0.000"]
    assert len(fp32) == len(READERS), "fp32 is fp32, on a CPU"
    instantir = {(row[0].removeprefix("| "), row[1]): row[-1] for row in rows if row[1] in ("live", "merged")}
    assert len(instantir) == 2 * len(DTYPES) + len(OFFLOADS) - 1 and instantir["fp32", "live"].startswith("0.0000")
    assert gpu_check.MEASURED not in page.read_text(encoding="utf-8"), "small sizes say nothing about the published ones"


def test_every_one_step_method_is_built_at_its_published_size(gpu_check: ModuleType) -> None:
    assert set(gpu_check.FULL_SIZE) == set(READERS) == set(PARAMETERS)
    for name, build in gpu_check.FULL_SIZE.items():
        with torch.device("meta"):
            size = build()
        assert sum(parameter.numel() for parameter in size.method.parameters()) == PARAMETERS[name]
        assert len(size.vae.config.block_out_channels) == 4 and size.vae.config.latent_channels in (4, 16)


def test_without_a_gpu_the_page_says_so_and_a_measured_one_stays(gpu_check: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    assert gpu_check.main(["--device", "cpu", "--output", str(page)]) == 0
    assert "nothing on this page has been measured" in page.read_text(encoding="utf-8")
    page.write_text(f"{gpu_check.MEASURED}\nseconds\n", encoding="utf-8")
    assert gpu_check.main(["--device", "cpu", "--output", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == f"{gpu_check.MEASURED}\nseconds\n"


def test_page_of_the_repository_is_measured_or_says_that_it_is_not(gpu_check: ModuleType) -> None:
    text = gpu_check.PAGE.read_text(encoding="utf-8")
    assert gpu_check.MEASURED in text or text == gpu_check.NO_GPU


def test_small_sizes_do_not_go_on_the_page_of_the_repository(gpu_check: ModuleType) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--tiny", "--device", "cpu"])


def test_a_row_that_fails_says_so_and_the_others_go_on(gpu_check: ModuleType) -> None:
    def refuse() -> tuple[str, ...]:
        raise BadValueError("8 bits are not\nto be had.")

    page = gpu_check.Page()
    page.table("Offloading", "", ("method", "offload", "held GiB", "seconds"))
    page.row("gendr", "layerwise fp8", refuse)
    page.row("gendr", "none", lambda: ("1.00", "0.5"))
    assert page.lines[-2:] == ["| gendr | layerwise fp8 | failed: 8 bits are not to be had. |  |", "| gendr | none | 1.00 | 0.5 |"]
    assert page.failures == ["gendr, layerwise fp8: 8 bits are not to be had."]


def test_tiles_that_were_tried_are_told_by_the_log(gpu_check: ModuleType) -> None:
    from kintsugi.core.runtime import with_smaller_tiles

    def run(tile: int) -> torch.Tensor:
        if tile > 128:
            raise MemoryError
        return torch.zeros(1)

    with gpu_check.tiles_tried(512) as tried:
        with_smaller_tiles(run, 512, 64)
    assert tried == [512, 256, 128]
