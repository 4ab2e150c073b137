"""Fur, hair, grass, needles and fibres: thousands of thin strokes that follow a smooth orientation field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import SUPERSAMPLING, Floats, downsampled
from .noise import smooth_noise


@dataclass(frozen=True)
class Coat:
    """What a hairy surface is like. Lengths and widths in pixels of the picture, angles in radians."""

    length: float
    width: float
    disorder: float
    swirl: float
    swirl_cell: float
    cover: float
    contrast: float


def draw_coat(rng: np.random.Generator) -> Coat:
    """Anything from short plush to long hair, grass and straw."""
    return Coat(
        length=float(np.exp(rng.uniform(np.log(6), np.log(45)))),
        width=float(rng.choice([0.5, 1.0, 1.5, 2.0, 3.0], p=[0.15, 0.35, 0.25, 0.15, 0.1])),
        disorder=float(rng.choice([0.06, 0.15, 0.35, 0.8], p=[0.3, 0.4, 0.2, 0.1])),
        swirl=float(rng.uniform(0.2, 1.2)),
        swirl_cell=float(rng.uniform(40, 200)),
        cover=float(rng.uniform(1.8, 2.8)),
        contrast=float(rng.uniform(0.1, 0.35)),
    )


def trace(angles: Floats, x: Floats, y: Floats, turn: Floats, steps: int) -> tuple[Floats, Floats, Floats]:
    """Paths [N, steps] of N strokes from their roots x, y [N], one grid cell a step, along angles [S, S] + turn [N].

    Gives x, y and the direction (radians) at each step. Stroke ends may leave the grid.
    """
    size = angles.shape[0]
    flat = angles.ravel()
    paths = np.empty((3, steps, x.size), np.float32)
    bend = turn * np.float32(0.6 / steps)
    for step in range(steps):
        column = np.clip(x, 0, size - 1).astype(np.int32)
        row = np.clip(y, 0, size - 1).astype(np.int32)
        direction = flat[row * size + column] + turn + bend * step
        paths[:, step] = x, y, direction
        x, y = x + np.cos(direction), y + np.sin(direction)
    return paths[0].T, paths[1].T, paths[2].T


def painted(base: Floats, paths: tuple[Floats, Floats, Floats], values: Floats, width: int) -> tuple[Floats, Floats]:
    """Tones and cover [S, S] after painting strokes in order over `base`, later ones hiding earlier ones.

    values [N, steps] are the tones along each stroke; width in grid cells. The stroke's flanks are a little darker, and it tapers
    to one cell at its tip.
    """
    size = base.shape[0]
    x, y, direction = paths
    steps = x.shape[1]
    offsets = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
    taper = np.linspace(1, 1 / width, steps, dtype=np.float32)
    side = offsets[None, :, None] * taper[None, None, :]
    across_x, across_y = (-np.sin(direction))[:, None, :], np.cos(direction)[:, None, :]
    column = (x[:, None, :] + side * across_x).astype(np.int32)
    row = (y[:, None, :] + side * across_y).astype(np.int32)
    flank = 1 - np.float32(0.35) * (np.abs(offsets) / max(width / 2, 1)) ** 2
    shades = np.broadcast_to(values[:, None, :] * flank[None, :, None], column.shape)
    inside = ((column >= 0) & (column < size) & (row >= 0) & (row < size)).ravel()
    index = (row * size + column).ravel()[inside]
    tone, cover = base.copy(), np.zeros_like(base)
    tone.ravel()[index] = shades.ravel()[inside]
    cover.ravel()[index] = 1
    return tone, cover


def fur(rng: np.random.Generator, size: int, coat: Coat, heading: float, inside: Floats | None = None) -> tuple[Floats, Floats]:
    """Tones and cover [size, size], both in 0..1, of a coat growing along `heading` (radians).

    inside: where roots grow, [size, size] in 0..1, everywhere when None; tips reach beyond it, as at a real outline.
    """
    fine = size * SUPERSAMPLING
    angles = heading + coat.swirl * smooth_noise(rng, fine, coat.swirl_cell * SUPERSAMPLING)
    angles += np.float32(coat.disorder) * smooth_noise(rng, fine, 9.0 * SUPERSAMPLING)
    steps = max(6, round(coat.length * SUPERSAMPLING))
    width = max(1, round(coat.width * SUPERSAMPLING))
    count = int(min(coat.cover * fine * fine / (steps * width) * 1.3, 9e5 / (steps * width) * 1.6))
    x, y = rng.uniform(-steps, fine + steps, (2, count)).astype(np.float32)
    if inside is not None:
        column, row = (np.clip(v / SUPERSAMPLING, 0, size - 1).astype(np.int32) for v in (x, y))
        rooted = inside[row, column] > 0.5
        x, y = x[rooted], y[rooted]
    turn = rng.normal(0, coat.disorder, x.size).astype(np.float32)
    patches = 0.5 + 0.16 * smooth_noise(rng, fine, rng.uniform(15, 120) * SUPERSAMPLING)
    if rng.random() < 0.5:
        markings = np.tanh(np.float32(3) * smooth_noise(rng, fine, rng.uniform(8, 40) * SUPERSAMPLING))
        patches = patches + np.float32(rng.uniform(0.08, 0.25)) * markings
    column, row = (np.clip(v, 0, fine - 1).astype(np.int32) for v in (x, y))
    own = patches[row, column] + rng.normal(0, coat.contrast * 0.6, x.size).astype(np.float32)
    rise = coat.contrast * (np.linspace(-1, 1, steps, dtype=np.float32) ** 3 + np.linspace(-0.6, 0.6, steps, dtype=np.float32))
    undercoat = patches - np.float32(1.1 * coat.contrast)
    tone, cover = painted(undercoat, trace(angles, x, y, turn, steps), own[:, None] + rise, width)
    return downsampled(tone), downsampled(cover)
