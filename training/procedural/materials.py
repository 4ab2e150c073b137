"""A material: one coloured square of surface that the leaves of a picture are cut from."""

from __future__ import annotations

import numpy as np

from .arrays import Floats
from .foliage import foliage
from .noise import smooth_noise, spectral_noise
from .palettes import Palette, colourised
from .strokes import draw_coat, fur
from .textures import draw_texture


def coloured(rng: np.random.Generator, tone: Floats, palette: Palette, mix: Floats | None = None) -> Floats:
    """RGB [S, S, 3] of tones [S, S]: a ramp of the palette, or two blended by mix [S, S] or by smooth noise."""
    picture = colourised(tone, palette.ramp(rng))
    if mix is None and rng.random() < 0.5:
        return picture
    if mix is None:
        mix = np.clip(0.5 + 0.5 * smooth_noise(rng, tone.shape[0], rng.uniform(20, 150)), 0, 1)
    return picture + mix[..., None] * (colourised(tone, palette.ramp(rng)) - picture)


def with_grain(rng: np.random.Generator, picture: Floats, strength: float) -> Floats:
    """Fine multiplicative grain, as of skin, paper or stone seen close."""
    return picture * (1 + np.float32(strength) * spectral_noise(rng, picture.shape[0], rng.uniform(0.4, 1.6))[..., None])


def fur_material(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """A furry surface [size, size, 3] in 0..1."""
    tone, _ = fur(rng, size, draw_coat(rng), rng.uniform(0, 2 * np.pi))
    return coloured(rng, tone, palette)


def foliage_material(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """Leaves and grass [size, size, 3] in 0..1."""
    tone, mix, _ = foliage(rng, size, float(np.exp(rng.uniform(np.log(5), np.log(30)))))
    return coloured(rng, tone, palette, mix)


def surface_material(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """A textured surface [size, size, 3] in 0..1, grainy sometimes."""
    tone = draw_texture(rng, size)
    if rng.random() < 0.3:
        tone = 0.5 + 0.7 * (tone - 0.5 + draw_texture(rng, size) - 0.5)
    picture = coloured(rng, tone, palette)
    return with_grain(rng, picture, rng.uniform(0.01, 0.08)) if rng.random() < 0.35 else picture


def draw_material(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """RGB [size, size, 3]: fur, foliage or a plain surface."""
    kinds = (fur_material, foliage_material, surface_material)
    return kinds[int(rng.choice(len(kinds), p=[0.2, 0.2, 0.6]))](rng, size, palette)
