from __future__ import annotations

import numpy as np
import pytest
from kintsugi.core.degradation.fixed_modes import MODES, Mode, blur, degrade_fixed, validation_crop
from kintsugi.core.quality import psnr
from PIL import Image
from torch import from_numpy


@pytest.mark.parametrize("mode", MODES)
def test_a_fixed_mode_gives_the_same_picture_every_time(mode: Mode) -> None:
    ramps = np.add.outer(np.arange(64), np.arange(96))[..., None] + np.array([0, 30, 60])
    picture = ramps.astype(np.uint8)
    first, second = degrade_fixed(picture, mode, 3), degrade_fixed(picture, mode, 3)
    assert first.shape == picture.shape and (first == second).all() and (first != picture).any()
    assert (degrade_fixed(picture, mode, 4) != first).any() == (mode != "bicx4")
    assert psnr(from_numpy(first / 255), from_numpy(picture / 255)) > 20


def test_bicubic_mode_is_pillows_bicubic_down_and_up() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    small = Image.fromarray(picture).resize((10, 8), Image.Resampling.BICUBIC)
    assert (degrade_fixed(picture, "bicx4", 0) == np.asarray(small.resize((40, 32), Image.Resampling.BICUBIC))).all()


def test_blur_equals_scipys() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    picture = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    expected = ndimage.gaussian_filter(picture.astype(np.float64), (1.5, 1.5, 0), mode="reflect", truncate=4)
    assert np.abs(blur(picture, 1.5) - expected).max() < 1e-9


@pytest.mark.parametrize(("size", "kept"), [((600, 800), (512, 512)), ((427, 640), (424, 640)), ((300, 451), (296, 448))])
def test_validation_crop_is_the_centre_or_the_whole(size: tuple[int, int], kept: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), dtype=np.uint8)
    picture[size[0] // 2, size[1] // 2] = 255
    cropped = validation_crop(picture)
    assert cropped.shape[:2] == kept and cropped[kept[0] // 2 - 1 : kept[0] // 2 + 1, kept[1] // 2 - 1 : kept[1] // 2 + 1].max() == 255
