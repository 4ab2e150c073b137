"""Pictures that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def drawn_pictures(tmp_path: Path) -> Path:
    """A folder of three small pictures of coloured squares."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48 + 8 * index, 40)).save(folder / f"{index}.png")
    return folder
