"""One training picture: a backdrop, layers of leaves from far to near, fur and foliage among them, details, a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import details
from .arrays import Floats, blurred, lay_over, pixel_grid, smoothstep
from .foliage import foliage
from .leaves import leaf_mask, outline, power_law_radius
from .materials import coloured, draw_material
from .noise import smooth_noise
from .palettes import Palette, draw_palette
from .strokes import draw_coat, fur


@dataclass(frozen=True)
class Style:
    """What kind of picture is drawn. Shares are probabilities in 0..1, blurs are sigmas in pixels.

    regions: how many large shapes divide the backdrop; exponent: of the leaves' sizes, see power_law_radius.
    """

    backdrop_textured: float
    leaf_textured: float
    regions: int
    leaves: int
    exponent: float
    far_blur: float
    near_blur: float


def draw_style(rng: np.random.Generator) -> Style:
    """Still life, portrait before a soft backdrop, close-up of a surface, or clutter."""
    kind = rng.choice(4, p=[0.35, 0.25, 0.2, 0.2])
    soft = float(rng.uniform(1.2, 5))
    exponent = float(rng.uniform(1.3, 2.4))
    if kind == 0:
        return Style(0.35, 0.45, int(rng.integers(2, 8)), int(rng.integers(15, 80)), exponent, float(rng.choice([0, 0, 1.0])), 0)
    if kind == 1:
        return Style(0.6, 0.4, int(rng.integers(1, 6)), int(rng.integers(8, 40)), exponent, soft, float(rng.choice([0, 0, 0, 0.8])))
    if kind == 2:
        return Style(1.0, 0.8, int(rng.integers(0, 3)), int(rng.integers(0, 8)), exponent, 0, 0)
    return Style(0.5, 0.55, int(rng.integers(3, 12)), int(rng.integers(60, 220)), exponent, 0, 0)


def smooth_backdrop(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """A sky, a wall or a soft backdrop: a gradient between two or three colours with slow variation."""
    _, y = pixel_grid(size, float(rng.choice([0, rng.uniform(0, 6)])))
    place = smoothstep(y / size + 0.5 + 0.08 * rng.random() * smooth_noise(rng, size, size / 2))[..., None]
    first, second = palette.colour(rng), palette.colour(rng)
    picture = first + place * (second - first) * np.float32(rng.uniform(0.1, 1))
    return picture * (1 + np.float32(rng.uniform(0, 0.08)) * smooth_noise(rng, size, rng.uniform(60, 200)))[..., None]


def leaf_shading(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Light across one leaf, [h, w] around 1: flat, from one side, or round as on a ball."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    kind = rng.choice(3, p=[0.25, 0.4, 0.35])
    if kind == 0:
        return np.ones(shape, np.float32)
    light_x, light_y = rng.normal(0, 0.6, 2)
    if kind == 1:
        return 1 + np.float32(rng.uniform(0.1, 0.5)) * (np.float32(light_x) * x + np.float32(light_y) * y)
    ball = np.sqrt(np.clip(1.05 - x * x - y * y, 0, 1)) + 0.5 * np.float32(light_x) * x + 0.5 * np.float32(light_y) * y
    return np.float32(1 - (strength := rng.uniform(0.2, 0.7)) * 0.7) + np.float32(strength) * ball


def leaf_fill(rng: np.random.Generator, shape: tuple[int, int], style: Style, materials: list[Floats], palette: Palette) -> Floats:
    """Colours [h, w, 3] inside one leaf: a piece of a material, recoloured, or one smooth colour."""
    shade = leaf_shading(rng, shape)[..., None]
    if not materials or rng.random() > style.leaf_textured:
        return palette.colour(rng) * shade
    material = materials[rng.integers(len(materials))]
    size = material.shape[0]
    top, left = rng.integers(0, size - shape[0] + 1), rng.integers(0, size - shape[1] + 1)
    piece = material[top : top + shape[0], left : left + shape[1]]
    if rng.random() < 0.5:
        mean = piece.mean(axis=(0, 1))
        target = mean + np.float32(rng.uniform(0, 0.8)) * (palette.colour(rng) - mean)
        piece = target + np.float32(rng.uniform(0.4, 1.2)) * (piece - mean)
    return piece * shade


def add_leaf(rng: np.random.Generator, canvas: Floats, radius: float, style: Style, materials: list[Floats], palette: Palette) -> None:
    """One more leaf over the canvas [S, S, 3], with a soft shadow at times and soft edges at times; radius in pixels."""
    size = canvas.shape[0]
    x, y = rng.uniform(-radius / 2, size + radius / 2, 2)
    found = leaf_mask(rng, radius, size, (x, y))
    if found is None:
        return
    mask, region = found
    under = canvas[region]
    if radius > 8 and rng.random() < 0.35:
        reach = int(rng.integers(1, 3 + int(radius / 8)))
        shadow = blurred(np.pad(mask, reach), reach * 0.6)[: mask.shape[0], : mask.shape[1]]
        under *= 1 - np.float32(rng.uniform(0.2, 0.7)) * shadow[..., None]
    if rng.random() < 0.15:
        mask = blurred(mask, rng.uniform(0.5, 3))
    lay_over(under, leaf_fill(rng, mask.shape, style, materials, palette), mask)


def region_mask(rng: np.random.Generator, size: int) -> Floats:
    """Where an animal or a bush is: a large blob, [size, size] of 0 and 1."""
    points = outline(rng, "blob", size * rng.uniform(0.18, 0.55)) + rng.uniform(0.15 * size, 0.85 * size, 2)
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return np.asarray(image, np.float32)


def add_animal(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A furry shape whose hairs reach over its outline."""
    size = canvas.shape[0]
    tone, cover = fur(rng, size, draw_coat(rng), rng.uniform(0, 2 * np.pi), region_mask(rng, size))
    light = 1 + np.float32(rng.uniform(0, 0.3)) * smooth_noise(rng, size, 90)
    lay_over(canvas, coloured(rng, tone * light, palette), cover)


def add_bush(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """A cluster of leaves with a ragged outline."""
    size = canvas.shape[0]
    radius = float(np.exp(rng.uniform(np.log(3), np.log(24))))
    tone, mix, cover = foliage(rng, size, radius, region_mask(rng, size))
    light = 1 + np.float32(rng.uniform(0, 0.3)) * smooth_noise(rng, size, 90)
    lay_over(canvas, coloured(rng, tone * light, palette, mix), cover)


def add_subjects(rng: np.random.Generator, canvas: Floats, style: Style, materials: list[Floats], palette: Palette) -> None:
    """What the lens is focused on: an animal or a bush at times, and always something before a blurred backdrop."""
    soft = style.far_blur > 1
    if rng.random() < (0.45 if soft else 0.25):
        add_animal(rng, canvas, palette)
    if rng.random() < (0.35 if soft else 0.2):
        add_bush(rng, canvas, palette)
    for _ in range(int(rng.integers(1, 4)) if soft else 0):
        add_leaf(rng, canvas, rng.uniform(0.12, 0.45) * canvas.shape[0], style, materials, palette)


def leaf_radii(rng: np.random.Generator, style: Style, size: int) -> list[float]:
    """Radii in pixels in painting order: at random, or roughly from large to small, so that small things lie on large ones."""
    radii = [power_law_radius(rng, 3.0, 0.35 * size, style.exponent) for _ in range(style.leaves)]
    if rng.random() < 0.6:
        radii.sort(key=lambda radius: -radius * rng.lognormal(0, 0.7))
    return radii


def cast_shadow(rng: np.random.Generator, canvas: Floats) -> None:
    """The soft-edged shadow of something outside the picture."""
    shade = blurred(region_mask(rng, canvas.shape[0]), float(np.exp(rng.uniform(0, np.log(30)))))
    canvas *= 1 - np.float32(rng.uniform(0.3, 0.75)) * shade[..., None]


def add_details(rng: np.random.Generator, canvas: Floats, palette: Palette) -> None:
    """Each kind of detail with its own chance."""
    if rng.random() < 0.22:
        details.wires(rng, canvas, palette)
    if rng.random() < 0.08:
        details.grid(rng, canvas, palette)
    if rng.random() < 0.22:
        details.lettering(rng, canvas, palette)
    if rng.random() < 0.15:
        details.highlights(rng, canvas)


def developed(rng: np.random.Generator, canvas: Floats) -> Floats:
    """What a camera makes of it: uneven light, lens softness, tone curve, mild sharpening."""
    size = canvas.shape[0]
    if rng.random() < 0.4:
        canvas = canvas * (1 + np.float32(rng.uniform(0.05, 0.2)) * smooth_noise(rng, size, rng.uniform(80, 250)))[..., None]
    canvas = np.clip(canvas, 0, 1) ** np.float32(rng.lognormal(0, 0.2))
    canvas = blurred(canvas, rng.choice([0.35, 0.45, 0.55, 0.7, 0.9], p=[0.15, 0.3, 0.3, 0.15, 0.1]))
    if rng.random() < 0.35:
        canvas = canvas + np.float32(rng.uniform(0.1, 0.5)) * (canvas - blurred(canvas, 1.0))
    return canvas


def draw_scene(seed: int, size: int = 320) -> np.ndarray:
    """A picture [size, size, 3], uint8 RGB, that depends on seed and size alone (on one machine)."""
    rng = np.random.default_rng([seed, size])
    palette, style = draw_palette(rng), draw_style(rng)
    materials = [draw_material(rng, size, palette) for _ in range(rng.integers(2, 5))]
    textured = rng.random() < style.backdrop_textured
    canvas = materials[0].copy() if textured else smooth_backdrop(rng, size, palette)
    if rng.random() < 0.1:
        details.facade(rng, canvas, palette)
    for _ in range(style.regions):
        add_leaf(rng, canvas, rng.uniform(0.25, 0.9) * size, style, materials, palette)
    radii = leaf_radii(rng, style, size)
    for radius in radii[: len(radii) // 2]:
        add_leaf(rng, canvas, radius, style, materials, palette)
    canvas = blurred(canvas, style.far_blur)
    add_subjects(rng, canvas, style, materials, palette)
    for radius in radii[len(radii) // 2 :]:
        add_leaf(rng, canvas, radius, style, materials, palette)
    canvas = blurred(canvas, style.near_blur)
    if rng.random() < 0.35:
        cast_shadow(rng, canvas)
    add_details(rng, canvas, palette)
    return (np.clip(developed(rng, canvas), 0, 1) * 255 + 0.5).astype(np.uint8)
