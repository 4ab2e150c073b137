from __future__ import annotations

from pathlib import Path

import numpy as np
from kintsugi.core.degradation.fixed_modes import degrade_fixed
from PIL import Image

SAMPLE = Path(__file__).parents[2] / "docs" / "sample"


def stored(name: str) -> np.ndarray:
    with Image.open(SAMPLE / name) as image:
        return np.asarray(image)


def test_sample_is_the_clean_photo_in_the_mode_that_quality_measures() -> None:
    assert np.array_equal(stored("sample.jpg"), degrade_fixed(stored("clean.png"), "same", 0))


def test_clean_photo_is_the_one_of_scikit_image() -> None:
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as original:
        assert np.array_equal(stored("clean.png"), np.asarray(original.convert("RGB")))
