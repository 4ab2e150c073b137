from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.core.imaging.writing import write_photo
from kintsugi.headless.commands.score import mean_scores, score_files


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    results, references = tmp_path / "results", tmp_path / "references"
    reference = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(0))
    for name in ("a", "b"):
        write_photo(references / f"{name}.png", reference)
    write_photo(results / "a.png", reference)
    write_photo(results / "b.jpg", reference, quality=60)
    return results, references


def test_a_folder_is_scored_against_pictures_of_the_same_names(folders: tuple[Path, Path]) -> None:
    report = score_files([folders[0]], folders[1], "psnr,ssim")
    assert [Path(entry["file"]).name for entry in report] == ["a.png", "b.jpg"]
    assert report[0]["scores"]["psnr"] is None and report[0]["scores"]["ssim"] == pytest.approx(1)
    assert 5 < report[1]["scores"]["psnr"] < 40
    assert mean_scores(report)["psnr"] == report[1]["scores"]["psnr"]


def test_scoring_needs_no_reference(folders: tuple[Path, Path]) -> None:
    assert all(set(entry["scores"]) == {"sharpness", "noise", "blockiness"} for entry in score_files([folders[0]]))


def test_one_bad_picture_does_not_stop_the_others(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.png").write_bytes(b"no picture")
    (folders[1] / "b.png").rename(folders[1] / "other.png")
    report = score_files([folders[0]], folders[1])
    assert "a.png" in report[0]["error"] and "no picture called b" in report[1]["error"]
    write_photo(folders[0] / "c.png", torch.zeros(4, 4, 3))
    assert "24" in score_files([folders[0] / "c.png"], folders[1] / "a.png")[0]["error"]


def test_impossible_requests_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(FileAccessError):
        score_files([folders[0] / "none.png"])
    with pytest.raises(FileAccessError):
        score_files([folders[0]], folders[1] / "none")
    with pytest.raises(BadValueError):
        score_files([folders[0]], metrics="ssim")
