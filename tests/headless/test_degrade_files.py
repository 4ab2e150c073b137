"""Degrading files: pictures and parameters beside them, replay, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.headless.commands.degrade import degrade_files
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(random.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_folder_becomes_pictures_with_their_parameters_beside(folder: Path, tmp_path: Path) -> None:
    report = degrade_files([folder], tmp_path / "out", "real-esrgan", scale=2, seed=5)
    assert [entry["seed"] for entry in report] == [5, 6]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png", "b.json", "b.png"]
    assert pixels(tmp_path / "out" / "b.png").shape == (16, 20, 3)
    alone = degrade_files([folder / "b.jpg"], tmp_path / "alone.png", "real-esrgan", scale=2, seed=6)
    assert "error" not in alone[0]
    np.testing.assert_array_equal(pixels(tmp_path / "alone.png"), pixels(tmp_path / "out" / "b.png"))


def test_replaying_the_parameters_gives_the_same_picture(folder: Path, tmp_path: Path) -> None:
    degrade_files([folder / "a.png"], tmp_path / "one.png", "apisr", seed=3)
    degrade_files([folder / "a.png"], tmp_path / "two.png", replay_file=tmp_path / "one.json")
    np.testing.assert_array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()


def test_alpha_is_kept_at_the_small_size(tmp_path: Path) -> None:
    rgba = np.full((16, 16, 4), 255, dtype=np.uint8)
    rgba[:, :8, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    degrade_files([tmp_path / "cut.png"], tmp_path / "small.png", "bicubic", scale=4)
    assert pixels(tmp_path / "small.png")[:, :, 3].tolist() == [[0, 0, 255, 255]] * 4


def test_a_broken_picture_is_reported_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(b"no picture")
    report = degrade_files([folder], tmp_path / "out", "bicubic")
    assert "a.png" in report[0]["error"] and "error" not in report[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.json", "b.png"]


def test_an_existing_result_is_kept_unless_overwriting(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("mine")
    assert "exists" in degrade_files([folder / "a.png"], tmp_path / "one.png", "bicubic")[0]["error"]
    assert (tmp_path / "one.json").read_text() == "mine" and not (tmp_path / "one.png").exists()
    assert "error" not in degrade_files([folder / "a.png"], tmp_path / "one.png", "bicubic", overwrite=True)[0]
    assert json.loads((tmp_path / "one.json").read_text())["preset"] == "bicubic"


def test_impossible_requests_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.webp")
    out = tmp_path / "out"
    with pytest.raises(BadValueError, match=r"a\.png and a\.webp would both become a\.png"):
        degrade_files([folder], out)
    with pytest.raises(BadValueError, match="no degradation preset"):
        degrade_files([folder / "a.png"], out, "unheard-of")
    with pytest.raises(FileAccessError, match="no such file"):
        degrade_files([tmp_path / "gone.png"], out)
    with pytest.raises(BadValueError, match="one picture"):
        degrade_files([folder / "a.png", folder / "b.jpg"], out, replay_file=tmp_path / "x.json")
    with pytest.raises(FileAccessError, match=r"x\.json"):
        degrade_files([folder / "a.png"], out, replay_file=tmp_path / "x.json")
    assert not out.exists()
