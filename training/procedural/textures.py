"""Tones of surfaces, each [size, size] around 0.5: noise, grain, stripes, weaves, bricks, wood, stones, fabric, bark, water.

Edges inside a texture are a pixel wide or softer, so none of them aliases.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import Floats, pixel_grid, smoothstep
from .noise import smooth_noise, spectral_noise, voronoi

Texture = Callable[[np.random.Generator, int], Floats]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _warped_grid(rng: np.random.Generator, size: int, strength: float) -> tuple[Floats, Floats]:
    """Turned pixel coordinates, bent smoothly by up to about `strength` pixels; slightly in perspective at times."""
    x, y = pixel_grid(size, rng.uniform(0, np.pi))
    if rng.random() < 0.4:
        depth = 1 + np.float32(rng.uniform(0.1, 0.7) / size) * (y + size / 2)
        x, y = x / depth, y / depth
    cell = rng.uniform(50, 160)
    return x + strength * smooth_noise(rng, size, cell), y + strength * smooth_noise(rng, size, cell)


def _edge(distance: Floats, width: float = 1.0) -> Floats:
    """0..1 over `width` pixels around where a distance in pixels is 0."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


def clouds(rng: np.random.Generator, size: int) -> Floats:
    """Soft marbled or cloudy noise, steep enough to be smooth."""
    return 0.5 + rng.uniform(0.06, 0.22) * spectral_noise(rng, size, rng.uniform(2.8, 4.0))


def folds(rng: np.random.Generator, size: int) -> Floats:
    """Cloth in folds, crumpled paper or polished metal: smooth shading that turns quickly at the ridges."""
    height = spectral_noise(rng, size, rng.uniform(3.6, 4.4), stretch=rng.uniform(1, 3), angle=rng.uniform(0, np.pi))
    shade = np.sin(np.float32(rng.uniform(1.5, 7)) * height)
    if rng.random() < 0.4:
        shade = np.abs(shade) * 2 - 1
    return 0.5 + rng.uniform(0.1, 0.4) * shade


def rough(rng: np.random.Generator, size: int) -> Floats:
    """Multi-octave noise as of plaster, concrete, bread or soil."""
    noise = spectral_noise(rng, size, rng.uniform(1.3, 2.6))
    if rng.random() < 0.3:
        noise = np.float32(0.8) - np.float32(1.3) * np.abs(noise)
    return 0.5 + rng.uniform(0.05, 0.2) * noise


def grain(rng: np.random.Generator, size: int) -> Floats:
    """Fine grain, a pixel or two wide, whose strength varies over the surface."""
    fine = spectral_noise(rng, size, rng.uniform(0.5, 1.6))
    strength = smoothstep(0.5 + 0.5 * smooth_noise(rng, size, rng.uniform(30, 120)))
    return 0.5 + rng.uniform(0.03, 0.13) * fine * (0.3 + strength) + rng.uniform(0.05, 0.15) * spectral_noise(rng, size, 3)


def stripes(rng: np.random.Generator, size: int) -> Floats:
    """Bands across one direction: sharp, rounded or of irregular width."""
    x, _ = _warped_grid(rng, size, rng.choice([0, 0, 2, 10]))
    period = _log_uniform(rng, 3.5, 50)
    phase = x / np.float32(period)
    wave: Floats = np.sin(2 * np.pi * phase)
    if rng.random() < 0.4:
        wave = np.float32(0.6) * wave + np.float32(0.5) * np.sin(np.float32(2 * np.pi * rng.uniform(0.1, 0.45)) * phase + 1)
    sharp = rng.choice([0.5, 1.0, 3.0, period / 3])
    return 0.5 + rng.uniform(0.08, 0.35) * np.clip(wave * np.float32(min(sharp, period / 5) + 0.1), -1, 1)


def weave(rng: np.random.Generator, size: int) -> Floats:
    """Threads over and under each other: linen, denim, knitwear, baskets."""
    x, y = _warped_grid(rng, size, rng.choice([0.5, 2, 6]))
    period = _log_uniform(rng, 3, 16)
    u, v = x / np.float32(period), y / np.float32(period)
    thread_u, thread_v = np.floor(u), np.floor(v)
    twill = rng.integers(2, 4)
    over = (thread_u + thread_v) % twill < 1
    round_u, round_v = np.sin(np.pi * (u - thread_u)), np.sin(np.pi * (v - thread_v))
    tone = np.where(over, round_u * (0.6 + 0.4 * round_v), 0.85 * round_v * (0.6 + 0.4 * round_u))
    uneven = 1 + rng.uniform(0, 0.25) * np.sin(thread_u * 12.9 + np.where(over, 0, thread_v * 7.3))
    strength = rng.uniform(0.15, 0.5) * min(1.0, period / 6)
    return 0.5 + strength * (tone * uneven - 0.55) + 0.04 * spectral_noise(rng, size, 1.0)


def checks(rng: np.random.Generator, size: int) -> Floats:
    """Chequers or tartan."""
    x, y = _warped_grid(rng, size, rng.choice([0, 2, 8]))
    period = _log_uniform(rng, 8, 60)
    u, v = (np.sin(2 * np.pi * t / np.float32(period)) * np.float32(period / 5) for t in (x, y))
    u, v = np.clip(u, -1, 1), np.clip(v, -1, 1)
    tone = u * v if rng.random() < 0.4 else 0.5 * (u + v) + 0.3 * np.sin(2 * np.pi * x * np.float32(2.5 / period))
    return 0.5 + rng.uniform(0.08, 0.35) * tone


def bricks(rng: np.random.Generator, size: int) -> Floats:
    """Courses of bricks, planks, tiles or shingles with joints, each with its own tone."""
    x, y = _warped_grid(rng, size, rng.choice([0, 0.7, 2]))
    height = _log_uniform(rng, 5, 32)
    width = height * rng.choice([1.0, 2.2, 3.0, 8.0])
    joint = rng.uniform(0.7, 1 + height / 8)
    row = np.floor(y / np.float32(height))
    shifted = x + row * np.float32(width * rng.choice([0, 0.5, 0.37]))
    column = np.floor(shifted / np.float32(width))
    inside_y, inside_x = y - row * np.float32(height), shifted - column * np.float32(width)
    away = np.minimum(np.minimum(inside_x, width - inside_x), np.minimum(inside_y, height - inside_y)) - np.float32(joint / 2)
    own = np.modf(np.abs(np.sin(row * 127.1 + column * 311.7 + rng.uniform(0, 9)) * 4375.5))[0]
    face = 0.5 + rng.uniform(0.03, 0.3) * (own - 0.5) + rng.uniform(0, 0.08) * spectral_noise(rng, size, 1.5)
    face = face + rng.uniform(0, 0.2) * (inside_y / np.float32(height) - 0.5)
    joint_tone = rng.choice([0.2, 0.3, 0.75])
    return joint_tone + _edge(away, rng.uniform(1, 2.5)) * (face - joint_tone)


def wood(rng: np.random.Generator, size: int) -> Floats:
    """Year rings cut lengthwise, with fibres and pores along the plank."""
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15)
    rings = spectral_noise(rng, size, 3.2, stretch=rng.uniform(4, 9), angle=angle)
    bands = np.modf(np.abs(rings * np.float32(rng.uniform(1.5, 7))) + 2)[0]
    fibres = spectral_noise(rng, size, 1.0, stretch=rng.uniform(8, 20), angle=angle)
    return 0.5 + rng.uniform(0.08, 0.25) * (smoothstep(bands * 1.15) * (1 - _edge(bands - 0.93, 0.15)) - 0.45) + 0.06 * fibres


def bark(rng: np.random.Generator, size: int) -> Floats:
    """Ridges along one direction with dark furrows: bark, hay, brushed metal, combed hair."""
    noise = spectral_noise(rng, size, rng.uniform(1.2, 2.2), stretch=rng.uniform(2.5, 10), angle=rng.uniform(0, np.pi))
    return 0.5 + rng.uniform(0.06, 0.2) * (noise if rng.random() < 0.5 else np.float32(0.7) - np.float32(1.2) * np.abs(noise))


def water(rng: np.random.Generator, size: int) -> Floats:
    """Ripples: waves of a narrow range of lengths around one direction, finer towards the horizon."""
    x, y = _warped_grid(rng, size, rng.uniform(4, 14))
    period = _log_uniform(rng, 5, 30)
    waves = sum(np.sin(2 * np.pi * (x * rng.normal(0, 0.35) + y * rng.uniform(0.6, 1.6)) / period + rng.uniform(0, 6)) for _ in range(4))
    return 0.5 + rng.uniform(0.04, 0.13) * np.asarray(waves, np.float32) + 0.03 * spectral_noise(rng, size, 2)


def stones(rng: np.random.Generator, size: int) -> Floats:
    """Gravel, cobbles, scales or cells: rounded, shaded, each with its own tone, dark between."""
    x, y = _warped_grid(rng, size, rng.choice([0, 2, 5]))
    cell = _log_uniform(rng, 4, 45)
    nearest, second, own = voronoi(rng, x, y, cell)
    gap = (second - nearest) * np.float32(cell)
    dome = np.clip(1 - nearest**2 * rng.uniform(0.8, 1.8), 0, 1)
    face = 0.35 + 0.2 * dome + rng.uniform(0.1, 0.45) * (own - 0.4) + rng.uniform(0, 0.07) * spectral_noise(rng, size, 1.2)
    return 0.12 + _edge(gap - rng.uniform(0.5, cell / 8 + 0.6), rng.uniform(1, 1 + cell / 6)) * (face - 0.12)


def cracks(rng: np.random.Generator, size: int) -> Floats:
    """Thin lines between cells: dry earth, leather, leaf veins, crazed glaze."""
    x, y = _warped_grid(rng, size, rng.uniform(1, 8))
    cell = _log_uniform(rng, 8, 60)
    nearest, second, own = voronoi(rng, x, y, cell)
    line = np.exp(-(((second - nearest) * np.float32(cell / rng.uniform(0.8, 2.0))) ** 2))
    base = 0.5 + 0.08 * spectral_noise(rng, size, 2) + rng.uniform(0, 0.1) * (own - 0.5)
    return base + rng.choice([-0.4, -0.2, 0.25]) * line


def spots(rng: np.random.Generator, size: int) -> Floats:
    """Dots: regular as a perforated sheet, or scattered as a dappled coat."""
    x, y = _warped_grid(rng, size, rng.choice([0, 1, 4]))
    cell = _log_uniform(rng, 6, 40)
    if rng.random() < 0.5:
        u, v = (t / np.float32(cell) - np.round(t / np.float32(cell)) for t in (x, y))
        away = np.sqrt(u * u + v * v)
    else:
        away = voronoi(rng, x, y, cell)[0]
    return 0.5 + rng.uniform(0.1, 0.4) * rng.choice([-1, 1]) * _edge((rng.uniform(0.2, 0.4) - away) * np.float32(cell), rng.uniform(1, 3))


def camouflage(rng: np.random.Generator, size: int) -> Floats:
    """Patches with sharp borders: lichen, map-like stains, islands, peeling paint."""
    noise = spectral_noise(rng, size, rng.uniform(2.2, 3.4))
    steps = sum(_edge((noise - level) * rng.uniform(3, 14)) for level in rng.normal(0, 0.7, rng.integers(1, 4)))
    return 0.35 + 0.15 * np.asarray(steps, np.float32) + 0.04 * spectral_noise(rng, size, 1.2)


def distant_trees(rng: np.random.Generator, size: int) -> Floats:
    """Crumbly, high-contrast leaf mass as seen from afar: tufts with dark gaps and bright tips."""
    tufts = spectral_noise(rng, size, rng.uniform(1.8, 2.6))
    crumbs = spectral_noise(rng, size, rng.uniform(0.6, 1.2))
    return 0.42 + 0.14 * tufts + rng.uniform(0.08, 0.2) * crumbs * smoothstep(0.6 + 0.35 * tufts)


TEXTURES: dict[Texture, float] = {
    clouds: 1.0,
    folds: 1.5,
    rough: 1.4,
    grain: 1.2,
    stripes: 0.9,
    weave: 1.0,
    checks: 0.5,
    bricks: 1.0,
    wood: 0.9,
    bark: 1.1,
    water: 0.7,
    stones: 1.2,
    cracks: 0.7,
    spots: 0.5,
    camouflage: 0.7,
    distant_trees: 1.4,
}
"""Every plain surface and how often it is drawn, relative to the others."""


def draw_texture(rng: np.random.Generator, size: int) -> Floats:
    """A random surface of TEXTURES, [size, size] around 0.5, not clipped."""
    weights = np.array(list(TEXTURES.values()))
    chosen = list(TEXTURES)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    return chosen(rng, size).astype(np.float32)
