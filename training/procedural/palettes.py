"""Colours of one picture: a few related hues with a common saturation and luminance range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Floats

NATURAL_HUES = (0.01, 0.04, 0.06, 0.07, 0.09, 0.11, 0.14, 0.2, 0.26, 0.32, 0.55, 0.6)
"""Skin, wood, earth, straw, leaves and sky, in turns."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
RAMP_LENGTH = 512


def colour_of(hue: float, saturation: float, luma: float) -> Floats:
    """RGB [3] of the given luma; hue in turns (0 red, 1/3 green), saturation 0..1 of what that luma allows."""
    pure = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1).astype(np.float32)
    chroma = pure - pure @ LUMA
    room = np.where(chroma > 0, 1 - luma, luma) / np.maximum(np.abs(chroma), 1e-6)
    return np.float32(luma) + np.float32(saturation * room.min()) * chroma


@dataclass(frozen=True)
class Palette:
    """hues: in turns; saturation: mean 0..1; dark, light: the luma range of the picture."""

    hues: tuple[float, ...]
    saturation: float
    dark: float
    light: float

    def _saturation(self, rng: np.random.Generator) -> float:
        """Most things are duller than the palette's mean, a few are vivid."""
        return float(min(self.saturation * rng.lognormal(-0.15, 0.8), 0.85))

    def colour(self, rng: np.random.Generator, luma: float | None = None) -> Floats:
        """A random RGB colour [3] of the picture; `luma` in 0..1 is its place in the picture's luminance range."""
        place = rng.beta(0.8, 0.9) if luma is None else luma
        hue = self.hues[rng.integers(len(self.hues))] + rng.normal(0, 0.025)
        saturation = self._saturation(rng)
        return colour_of(hue, saturation, self.dark + (self.light - self.dark) * place)

    def ramp(self, rng: np.random.Generator) -> Floats:
        """Colours [512, 3] from shadow to light of one material; the hue drifts a little on the way."""
        centre, spread = rng.uniform(0.2, 0.75), rng.uniform(0.25, 0.7)
        places = np.clip(centre + spread * np.array([-1, -0.35, 0.35, 1]), 0, 1)
        hue = self.hues[rng.integers(len(self.hues))] + rng.normal(0, 0.025)
        drift, saturation = rng.normal(0, 0.03), self._saturation(rng)
        lumas = self.dark + (self.light - self.dark) * places
        colours = np.stack([colour_of(hue + drift * step, saturation, luma) for step, luma in enumerate(lumas)])
        at = np.linspace(0, 3, RAMP_LENGTH)
        return np.stack([np.interp(at, np.arange(4), colours[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def draw_palette(rng: np.random.Generator) -> Palette:
    """Natural (earth, leaves, sky, skin), neighbouring hues, complementary hues, anything, or grey."""
    kind = rng.choice(5, p=[0.52, 0.18, 0.13, 0.1, 0.07])
    base = rng.random()
    if kind == 0:
        hues = tuple(rng.choice(NATURAL_HUES, size=rng.integers(2, 6)) + rng.normal(0, 0.02))
    elif kind == 1:
        hues = tuple(base + rng.normal(0, 0.06, size=3))
    elif kind == 2:
        hues = (base, base + 0.5, base + rng.normal(0, 0.05))
    else:
        hues = tuple(rng.random(5))
    saturation = 0.0 if kind == 4 and rng.random() < 0.5 else float(rng.beta(1.8, 2.8) * (0.25 if kind == 4 else 1))
    contrast = 1.0 if rng.random() < 0.8 else rng.uniform(0.4, 0.8)
    dark = rng.uniform(0, 1 - contrast) + rng.beta(1, 8) * contrast
    return Palette(hues, saturation, dark, min(1.0, dark + contrast * rng.uniform(0.8, 1)))


def colourised(tone: Floats, ramp: Floats) -> Floats:
    """Colours [h, w, 3] of tones [h, w] in 0..1 (clipped) along a ramp [512, 3]."""
    return ramp[(np.clip(tone, 0, 1) * (RAMP_LENGTH - 1)).astype(np.int32)]
