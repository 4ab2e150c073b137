"""What every test shares: no network, two threads, deterministic hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import settings
from kintsugi.core.folders import Folders
from kintsugi.core.runtime import LocalHost, using_host
from PIL import Image

# Machines that run tests are noisy: no deadlines, and the same examples on every run.
settings.register_profile("kintsugi", deadline=None, derandomize=True)
settings.load_profile("kintsugi")


@pytest.fixture(autouse=True)
def host(tmp_path: Path) -> Iterator[LocalHost]:
    """A CPU host whose folders lie in the test's own temporary folder."""
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp", tmp_path / "models")
    for folder in (folders.input, folders.output, folders.temp, folders.models):
        folder.mkdir()
    with using_host(LocalHost(device=torch.device("cpu"), folders=folders)) as local:
        yield local


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
