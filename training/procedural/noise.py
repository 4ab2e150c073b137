"""Random fields: noise with a power-law spectrum, smooth noise on a coarse grid, and Voronoi cells."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from .arrays import Floats


@lru_cache(maxsize=8)
def _frequencies(size: int) -> tuple[Floats, Floats]:
    rows = np.fft.fftfreq(size).astype(np.float32)[:, None] * np.ones((1, size // 2 + 1), np.float32)
    columns = np.fft.rfftfreq(size).astype(np.float32)[None, :] * np.ones((size, 1), np.float32)
    return columns, rows


def spectral_noise(rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0, angle: float = 0.0) -> Floats:
    """Periodic Gaussian noise [size, size], mean 0, deviation 1, whose power falls as frequency**-slope.

    stretch > 1 makes it that much longer along the direction `angle` (radians): bark, water, brushed metal.
    """
    columns, rows = _frequencies(size)
    along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    squared = (along * np.float32(stretch)) ** 2 + across**2
    squared[0, 0] = 1
    amplitude = squared ** np.float32(-slope / 4)
    amplitude[0, 0] = 0
    shape = amplitude.shape
    spectrum = amplitude * (rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)).astype(np.complex64)
    field = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    return field / np.float32(field.std() + 1e-9)


def smooth_noise(rng: np.random.Generator, size: int, cell: float) -> Floats:
    """Smooth Gaussian noise [size, size] with features of about `cell` pixels, deviation about 0.7."""
    knots = max(2, int(np.ceil(size / cell)) + 3)
    grid = Image.fromarray(rng.standard_normal((knots, knots), np.float32))
    side = (size / cell) if size / cell < knots - 2 else knots - 2
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC, box=(1, 1, 1 + side, 1 + side)), np.float32)


def voronoi(rng: np.random.Generator, x: Floats, y: Floats, cell: float) -> tuple[Floats, Floats, Floats]:
    """Cells around the points of a jittered grid with spacing `cell`, at pixel coordinates x, y [h, w].

    Gives the distances to the nearest and second nearest point (in units of `cell`), and a random tone in 0..1 per cell.
    """
    x, y = x / np.float32(cell), y / np.float32(cell)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    column_origin, row_origin = int(column.min()) - 1, int(row.min()) - 1
    shape = (int(row.max()) - row_origin + 2, int(column.max()) - column_origin + 2)
    jitter_x, jitter_y, tones = (rng.random(shape, np.float32) for _ in range(3))
    nearest = np.full(x.shape, 9, np.float32)
    second, tone = nearest.copy(), nearest.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            r, c = row + (down - row_origin), column + (right - column_origin)
            away_x = jitter_x[r, c] + (column + right) - x
            away_y = jitter_y[r, c] + (row + down) - y
            distance = away_x * away_x + away_y * away_y
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            tone = np.where(closer, tones[r, c], tone)
            nearest = np.minimum(nearest, distance)
    return np.sqrt(nearest), np.sqrt(second), tone
