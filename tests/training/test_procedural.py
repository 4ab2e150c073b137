"""The generator of training pictures: same seed, same picture; spectra like those of photos; banks that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.training.procedural import bank
from kintsugi.training.procedural.bank import bank_path, load_bank
from kintsugi.training.procedural.scene import draw_scene


def spectrum_slope(picture: np.ndarray) -> float:
    """Log-log slope of the radially averaged luma power spectrum, Hann window, 0.02 to 0.4 cycles per pixel."""
    luma = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
    size = luma.shape[0]
    window = np.hanning(size)
    power = np.abs(np.fft.fft2((luma - luma.mean()) * np.outer(window, window))) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    edges = np.geomspace(0.02, 0.4, 14)
    place = np.digitize(frequency, edges)
    mean = [power[place == ring].mean() for ring in range(1, edges.size)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(mean), 1)[0])


def test_a_scene_follows_from_its_seed() -> None:
    first = draw_scene(3, 96)
    assert first.dtype == np.uint8 and first.shape == (96, 96, 3)
    assert np.array_equal(first, draw_scene(3, 96))
    assert not np.array_equal(first, draw_scene(4, 96))


def test_scenes_have_the_spectra_of_photos() -> None:
    slopes = [spectrum_slope(draw_scene(seed, 192)) for seed in range(30)]
    assert -3.2 < np.median(slopes) < -2.0
    assert np.mean([-4.0 < slope < -1.2 for slope in slopes]) >= 0.8


def test_scenes_have_smooth_parts_and_contrast() -> None:
    pictures = np.stack([draw_scene(seed, 192) for seed in range(100, 124)]).astype(np.float32).mean(-1)
    blocks = pictures.reshape(24, 24, 8, 24, 8).std(axis=(2, 4))
    assert 0.15 < (blocks < 3).mean() < 0.6
    assert pictures.std(axis=(1, 2)).mean() > 25


def test_a_bank_is_drawn_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load_bank(tmp_path / "banks", 3, 64, seed=5, workers=1)
    assert isinstance(drawn, np.memmap) and drawn.shape == (3, 64, 64, 3) and drawn.dtype == np.uint8
    monkeypatch.setattr(bank, "draw_scene", None)
    assert np.array_equal(load_bank(tmp_path / "banks", 3, 64, seed=5), drawn)
    assert [path.name for path in (tmp_path / "banks").iterdir()] == [bank_path(tmp_path, 3, 64, 5).name]


def test_processes_draw_the_same_bank_as_one(tmp_path: Path) -> None:
    alone = load_bank(tmp_path / "alone", 3, 64, seed=1, workers=1)
    assert np.array_equal(load_bank(tmp_path / "pool", 3, 64, seed=1, workers=2), alone)


def test_a_bank_that_was_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seed: int, size: int) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(bank, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, 2, 64, seed=0, workers=1)
    assert not list(tmp_path.glob("*leaves*"))


def test_a_changed_generator_does_not_reuse_a_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bank_path(tmp_path, 2, 64, 0)
    monkeypatch.setattr(bank, "GENERATOR_VERSION", bank.GENERATOR_VERSION + 1)
    assert bank_path(tmp_path, 2, 64, 0) != before


def test_an_unwritable_folder_or_an_empty_bank_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileAccessError, match="cannot be written"):
        load_bank(tmp_path / "file", 1, 64, seed=0, workers=1)
    with pytest.raises(BadValueError):
        load_bank(tmp_path, 0, 64, seed=0)
