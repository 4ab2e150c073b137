"""Float pictures: between PIL and numpy, blurred, and laid over each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]

SUPERSAMPLING = 2
"""Shapes and strokes are drawn on a grid this much finer and averaged down, which gives edges one pixel wide."""


def to_image(picture: Floats) -> Image.Image:
    """PIL picture (L or RGB) of floats [h, w] or [h, w, 3] in 0..1, rounded and clipped."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def from_image(image: Image.Image) -> Floats:
    """Floats in 0..1 of a PIL picture in mode L or RGB: [h, w] or [h, w, 3]."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def blurred(picture: Floats, sigma: float) -> Floats:
    """Gaussian blur of floats in 0..1, [h, w] or [h, w, 3]; sigma in pixels. Quantised to 8 bits, like the result will be."""
    if sigma < 0.15:
        return picture
    return from_image(to_image(picture).filter(ImageFilter.GaussianBlur(float(sigma))))


def downsampled(picture: Floats, factor: int = SUPERSAMPLING) -> Floats:
    """Mean over factor x factor blocks of [h, w]; both sides divisible by factor."""
    height, width = picture.shape
    return picture.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3), dtype=np.float32)


def lay_over(canvas: Floats, picture: Floats, alpha: Floats) -> None:
    """canvas [h, w, 3] <- alpha * picture + (1 - alpha) * canvas, in place. picture [h, w, 3] or [3], alpha [h, w]."""
    canvas += alpha[..., None] * (picture - canvas)


def pixel_grid(size: int, angle: float = 0.0) -> tuple[Floats, Floats]:
    """x and y [size, size] in pixels from the centre, turned by `angle` radians."""
    line = np.arange(size, dtype=np.float32) - np.float32(size / 2)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return line[None, :] * cosine + line[:, None] * sine, line[:, None] * cosine - line[None, :] * sine


def smoothstep(values: Floats) -> Floats:
    """0 below 0, 1 above 1, and a smooth cubic between."""
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)
