"""A bank of training pictures on disk: drawn once by a few processes, then read through a memory map."""

from __future__ import annotations

import logging
import multiprocessing
import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...core.errors import BadValueError, FileAccessError
from .scene import draw_scene

log = logging.getLogger("kintsugi")

GENERATOR_VERSION = 3
"""Raised with every change that alters a pixel of `draw_scene`; it is part of a bank's name, so old banks are not reused."""

SEEDS_PER_BANK = 1_000_003


def bank_path(folder: Path, count: int, size: int, seed: int) -> Path:
    """Where the bank of these pictures lies."""
    return folder / f"leaves-v{GENERATOR_VERSION}-{count}x{size}-seed{seed}.npy"


def load_bank(folder: Path, count: int, size: int, seed: int, workers: int = 2) -> NDArray[np.uint8]:
    """Memory-mapped, read-only pictures [count, size, size, 3], uint8 RGB; drawn first when the folder lacks them.

    Picture i depends on seed, i and size alone, not on count or workers. The file appears under its name when it is
    complete. Raises FileAccessError when the folder cannot be written, BadValueError for an impossible size.
    """
    if count < 1 or size < 32:
        raise BadValueError(
            f"A bank of {count} pictures of {size} pixels cannot be drawn.",
            way_out="Ask for at least one picture, of 32 pixels or more.",
        )
    path = bank_path(folder, count, size, seed)
    if not path.exists():
        _draw_bank(path, count, size, seed, workers)
    pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return pictures


def _draw_bank(path: Path, count: int, size: int, seed: int, workers: int) -> None:
    partial_path = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pictures = np.lib.format.open_memmap(partial_path, mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
            _fill(pictures, size, seed, workers)
            pictures.flush()
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)
    except OSError as error:
        raise FileAccessError(
            f"The bank of training pictures cannot be written: {error.strerror or error}.",
            where=str(path),
            way_out=f"Choose a folder with {count * size * size * 3 / 1e9:.1f} GB of free space.",
        ) from error
    log.info("Drew %d training pictures into %s.", count, path)


def _fill(pictures: NDArray[np.uint8], size: int, seed: int, workers: int) -> None:
    count = len(pictures)
    seeds = range(seed * SEEDS_PER_BANK, seed * SEEDS_PER_BANK + count)
    draw = partial(draw_scene, size=size)
    with tqdm(total=count, desc="Drawing training pictures", unit="picture") as bar:
        if workers <= 1:
            for index, one in enumerate(seeds):
                pictures[index] = draw(one)
                bar.update()
            return
        # Spawned, not forked: a fork of a process whose torch threads already run may hang.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for index, picture in enumerate(pool.imap(draw, seeds, chunksize=8)):
                pictures[index] = picture
                bar.update()
