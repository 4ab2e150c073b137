"""Foliage: clusters of small leaves with veins and shading, in layers from deep shadow to light."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from .arrays import Floats, from_image, to_image
from .noise import spectral_noise

ROTATIONS = 16


def leaf_sprites(rng: np.random.Generator, radius: float) -> list[tuple[Image.Image, Image.Image]]:
    """Tone and mask (mode L) of one kind of leaf in 16 directions; radius (half its length) in pixels."""
    side = int(np.ceil(radius)) * 2 + 3
    line = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / np.float32(radius)
    angles = np.linspace(0, 2 * np.pi, ROTATIONS, endpoint=False, dtype=np.float32)[:, None, None] + np.float32(rng.uniform(0, 0.4))
    along = line[None, None, :] * np.cos(angles) + line[None, :, None] * np.sin(angles)
    across = line[None, :, None] * np.cos(angles) - line[None, None, :] * np.sin(angles)
    across = across + np.float32(rng.uniform(-0.25, 0.25)) * (along**2 - 0.3)
    breadth, point, lobes = rng.uniform(0.18, 0.75), rng.uniform(0.5, 1.3), rng.integers(0, 6)
    half = breadth * np.clip(1 - along**2, 0, 1) ** point * (1 - rng.uniform(0, 0.35) * along)
    half = half * (1 - (0.35 * np.abs(np.sin(lobes * along * 2)) if lobes > 3 else 0))
    mask = np.clip((half - np.abs(across)) * np.float32(radius) + 0.5, 0, 1)
    veins = min(1.0, radius / 14) * rng.uniform(0.05, 0.16)
    rib = np.exp(-((across * radius / max(0.7, radius * 0.05)) ** 2))
    ribs = np.cos((along * 0.8 - np.abs(across)) * np.float32(rng.uniform(12, 26))) ** 8 * (np.abs(across) < half * 0.9)
    light = 0.5 + rng.uniform(0, 0.22) * np.tanh(across * 5) * np.cos(angles + rng.uniform(0, 6)) + rng.uniform(-0.15, 0.15) * along
    tone = light + rng.choice([-1, 1]) * veins * (rib + 0.5 * ribs) + 0.06 * np.cos(across / max(breadth, 0.1) * 3)
    return [(to_image(one), to_image(cut)) for one, cut in zip(tone.astype(np.float32), mask.astype(np.float32), strict=True)]


def foliage(rng: np.random.Generator, size: int, radius: float, inside: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """Tones, colour mix and cover [size, size], all in 0..1, of leaves about 2 * radius pixels long.

    inside: where leaves sit, [size, size] in 0..1, everywhere when None. Deep layers are dark, the last ones bright.
    """
    tone = to_image(0.12 + 0.06 * spectral_noise(rng, size, 1.5))
    mix, cover = Image.new("L", (size, size), 128), Image.new("L", (size, size), 0)
    sheets = [leaf_sprites(rng, radius * scale) for scale in (0.7, 1.0, 1.35)]
    density = rng.uniform(1.4, 4)
    count = int(min(2600, density * (size / radius) ** 2 / 1.6))
    x, y = rng.uniform(-radius, size + radius, (2, count))
    wind, order = rng.uniform(0, ROTATIONS), rng.uniform(1.0, 8.0)
    turns = (wind + rng.normal(0, order, count)).astype(int) % ROTATIONS
    depth = np.linspace(0, 1, count)
    lights = np.clip(np.round((0.4 + 0.8 * depth + rng.normal(0, 0.16, count)) * 6), 1, 10).astype(int)
    lit = _lit_sheets(sheets)
    kinds, hues = rng.integers(0, 3, count), rng.normal(128, 55, count).clip(0, 255).astype(int)
    for i in range(count):
        if inside is not None and inside[int(np.clip(y[i], 0, size - 1)), int(np.clip(x[i], 0, size - 1))] < 0.5:
            continue
        mask = sheets[kinds[i]][turns[i]][1]
        leaf = lit(int(kinds[i]), int(turns[i]), int(lights[i]))
        corner = (int(x[i]) - leaf.width // 2, int(y[i]) - leaf.height // 2)
        tone.paste(leaf, _box(corner, leaf), mask)
        mix.paste(int(hues[i]), _box(corner, leaf), mask)
        cover.paste(255, _box(corner, leaf), mask)
    return from_image(tone), from_image(mix), from_image(cover)


def _lit_sheets(sheets: list[list[tuple[Image.Image, Image.Image]]]) -> Callable[[int, int, int], Image.Image]:
    @cache
    def lit(kind: int, turn: int, light: int) -> Image.Image:
        return sheets[kind][turn][0].point([min(255, value * light // 6) for value in range(256)])

    return lit


def _box(corner: tuple[int, int], leaf: Image.Image) -> tuple[int, int, int, int]:
    return (*corner, corner[0] + leaf.width, corner[1] + leaf.height)
