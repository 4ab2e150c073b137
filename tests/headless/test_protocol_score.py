from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.imaging.writing import write_photo
from kintsugi.core.protocols import GENDR, TSD_SR
from kintsugi.core.quality import measure, pyiqa_model
from kintsugi.headless.cli import run_command_line
from kintsugi.headless.commands.protocol_score import score_by_protocol
from kintsugi.headless.commands.score import planes

# What the optional package gives, as far as scoring uses it: a distance of single pictures, a number of one, one of folders.
PYIQA = """
from pathlib import Path

class Model:
    lower_better = True
    def __init__(self, name):
        self.name, self.metric_mode = name, "FR" if name in ("lpips", "dists") else "NR"
    def __call__(self, picture, reference=None):
        if self.name == "fid":
            return len(list(Path(picture).iterdir())) + len(list(Path(reference).iterdir())) / 10
        return picture.mean() if reference is None else (picture - reference).abs().mean()

def create_metric(name):
    if name == "musiq":
        raise OSError("no network")
    return Model(name)
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures of 512 x 512 with their originals, and one of another size."""
    results, references = tmp_path / "results", tmp_path / "references"
    random = torch.Generator().manual_seed(0)
    for name, side in (("a", 512), ("b", 512), ("small", 64)):
        reference = torch.rand(side, side, 3, generator=random)
        write_photo(references / f"{name}.png", reference)
        write_photo(results / f"{name}.png", (reference + 0.1 * torch.randn(reference.shape, generator=random)).clamp(0, 1))
    return results, references


@pytest.fixture
def pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pyiqa.py").write_text(PYIQA)
    monkeypatch.syspath_prepend(tmp_path / "site")
    pyiqa_model.cache_clear()
    yield
    pyiqa_model.cache_clear()
    sys.modules.pop("pyiqa", None)


def score_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    code = run_command_line(["score", *map(str, arguments), "--cpu", "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_what_needs_no_weights_is_measured_and_the_rest_has_its_reason(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, report, said = score_json(capsys, folders[0], "--reference", folders[1], "--protocol", "tsd-sr")
    assert code == 1 and "small.png" in said and "512 x 512" in said and "64 x 64" in said
    first = report["pictures"][0]
    expected = measure(planes(folders[0] / "a.png"), planes(folders[1] / "a.png"), ["psnr_y601", "ssim_y601"])
    assert [first["scores"]["PSNR"], first["scores"]["SSIM"]] == pytest.approx(list(expected.values()))
    assert first["compared"] == "512 x 512" and report["measures"]["MANIQA"] == "pyiqa:maniqa-pipal"
    missing = {"LPIPS", "DISTS", "FID", "NIQE", "MUSIQ", "MANIQA", "CLIPIQA"}
    assert set(report["unavailable"]) == missing and {label for label, value in report["mean"].items() if value is None} == missing
    assert all(reason.startswith("not available: install the extra iqa") for reason in report["unavailable"].values())
    assert {row["data_set"] for row in report["published"]} == {"DRealSR", "RealSR", "DIV2K-Val"}


def test_a_person_sees_the_published_rows_under_the_same_columns(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["score", str(folders[0] / "a.png"), "--reference", str(folders[1]), "--protocol", "tsd-sr", "--cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == list(row.label for row in TSD_SR.columns)
    published = next(line for line in lines if line.startswith("published: RealSR (Table 1)"))
    assert lines[1].index("LPIPS") == published.index("0.2743")
    assert "LPIPS, DISTS, FID, NIQE, MUSIQ, MANIQA, CLIPIQA: not available: install the extra iqa" in "\n".join(lines)


@pytest.mark.usefixtures("pyiqa")
def test_installed_measures_see_the_prepared_pictures_and_folders(folders: tuple[Path, Path]) -> None:
    report = score_by_protocol([folders[0]], folders[1], TSD_SR)
    a, b = (planes(folder / "a.png") for folder in folders)
    scores = report["pictures"][0]["scores"]
    assert scores["LPIPS"] == pytest.approx(float((a - b).abs().mean())) and scores["NIQE"] == pytest.approx(float(a.mean()))
    assert report["mean"]["FID"] == pytest.approx(2.2), "two results, two originals: the refused picture is in neither folder"
    assert set(report["unavailable"]) == {"MUSIQ"} and "no network" in report["unavailable"]["MUSIQ"]
    alone = score_by_protocol([folders[0] / "a.png"], folders[1], TSD_SR)
    assert alone["mean"]["FID"] is None and "2 pictures" in alone["unavailable"]["FID"]


@pytest.mark.usefixtures("pyiqa")
def test_without_originals_the_measures_that_need_none_remain(folders: tuple[Path, Path]) -> None:
    report = score_by_protocol([folders[0]], None, GENDR)
    assert report["mean"]["NIQE"] is not None and report["mean"]["PSNR"] is None
    assert "--reference" in report["unavailable"]["PSNR"] and "language model" in report["unavailable"]["DepictQA"]
    assert all(entry["reference"] is None for entry in report["pictures"])


def test_a_protocol_chooses_the_measures_itself(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["score", str(folders[0]), "--protocol", "tsd-sr", "--metrics", "psnr"]) == 2
    assert run_command_line(["score", str(folders[0]), "--protocol", "mine"]) == 2
    said = capsys.readouterr().err
    assert "--metrics" in said and "no protocol 'mine'" in said
