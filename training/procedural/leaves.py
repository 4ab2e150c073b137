"""Dead leaves: shapes of power-law size that cover each other (Lee, Mumford and Huang, 2001), as soft masks."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .arrays import SUPERSAMPLING, Floats, from_image

SHAPES = ("disc", "ellipse", "polygon", "blob", "bar", "box", "curve")
SHAPE_WEIGHTS = (0.12, 0.18, 0.2, 0.24, 0.08, 0.1, 0.08)


def power_law_radius(rng: np.random.Generator, smallest: float, largest: float, exponent: float = 3.0) -> float:
    """A radius in pixels with density r**-exponent between the two; 3 gives pictures that look alike at every scale."""
    power = 1 - exponent
    low, high = smallest**power, largest**power
    return float((low + rng.random() * (high - low)) ** (1 / power))


def outline(rng: np.random.Generator, shape: str, radius: float) -> Floats:
    """Corners [N, 2] in pixels around the origin, of a closed shape that fits a circle of about `radius`."""
    turn = rng.uniform(0, 2 * math.pi)
    if shape == "polygon":
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 8)))
        radii = rng.uniform(0.6, 1.0, angles.size)
    elif shape in ("bar", "box"):
        slim = rng.uniform(0.03, 0.2) if shape == "bar" else rng.uniform(0.35, 1.0)
        corner = math.atan2(slim, 1)
        turn = rng.choice([0, math.pi / 2]) + rng.normal(0, 0.3) * (rng.random() < 0.5)
        angles = np.array([corner, math.pi - corner, math.pi + corner, -corner])
        radii = np.ones(4)
    else:
        angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        radii = np.ones(72)
        if shape == "blob":
            for lobe in range(1, 6):
                radii = radii + rng.normal(0, 0.22 / lobe) * np.cos(lobe * angles + rng.uniform(0, 6))
    flat = rng.uniform(0.3, 0.9) if shape in ("ellipse", "blob") else 1.0
    x, y = radius * radii * np.cos(angles), flat * radius * radii * np.sin(angles)
    return np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], -1).astype(np.float32)


def curve_points(rng: np.random.Generator, length: float) -> Floats:
    """Points [N, 2] in pixels of a long, smoothly bending line around the origin: a branch, a stem, a cable."""
    steps = np.linspace(-0.5, 0.5, 24)
    turn = rng.uniform(0, 2 * math.pi)
    direction = turn + rng.normal(0, 1.0) * steps + rng.normal(0, 0.5) * np.sin(steps * rng.uniform(3, 14))
    points = np.stack([np.cos(direction), np.sin(direction)], -1).cumsum(0) * (length / 24)
    return (points - points.mean(0)).astype(np.float32)


def leaf_mask(rng: np.random.Generator, radius: float, size: int, centre: tuple[float, float]) -> tuple[Floats, tuple[slice, slice]] | None:
    """Soft mask of one random shape and the part of a size x size picture that it covers; None when it lies outside."""
    shape = str(rng.choice(SHAPES, p=SHAPE_WEIGHTS))
    points = curve_points(rng, radius * 3) if shape == "curve" else outline(rng, shape, radius)
    points = points + np.asarray(centre, np.float32)
    thickness = max(1.0, radius * rng.uniform(0.04, 0.25)) if shape == "curve" else 0.0
    low = np.maximum(np.floor(points.min(0) - thickness - 1), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + thickness + 1), size).astype(int)
    width, height = high - low
    if width <= 1 or height <= 1:
        return None
    image = Image.new("L", (int(width) * SUPERSAMPLING, int(height) * SUPERSAMPLING))
    corners = [(float(x), float(y)) for x, y in (points - low) * SUPERSAMPLING]
    draw = ImageDraw.Draw(image)
    if shape == "curve":
        draw.line(corners, fill=255, width=max(1, round(thickness * SUPERSAMPLING)), joint="curve")
    else:
        draw.polygon(corners, fill=255)
    return from_image(image.reduce(SUPERSAMPLING)), (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
