"""Degradations of the scene rather than of the file: rain, low light, and strokes painted over the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

Point = tuple[float, float]


def rain_streaks(picture: Tensor, draw: Tensor, density: float, length: float, angle: float, width: float, brightness: float) -> Tensor:
    """Falling drops, blurred along their way, screened over a picture [1, 3, H, W] in 0..1.

    draw: uniform [1, 1, H, W]; density: share of pixels where a drop starts; length and width in pixels; angle in
    radians from the vertical; brightness: the light of a streak in 0..1.
    """
    drops = (draw < density).to(picture)
    kernel = _streak_kernel(length, angle, width).to(picture)
    streaks = _convolve(drops, kernel).clamp(0, 1)
    return 1 - (1 - picture) * (1 - brightness * streaks)


def _convolve(planes: Tensor, kernel: Tensor) -> Tensor:
    """Planes [..., H, W] with a large odd kernel [k, k], zeros outside; by FFT, whose cost does not grow with k^2."""
    height, width = planes.shape[-2:]
    reach = kernel.shape[-1] // 2
    size = (height + 2 * reach, width + 2 * reach)
    spectrum = torch.fft.rfft2(planes, s=size) * torch.fft.rfft2(kernel, s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., reach : reach + height, reach : reach + width]


def _streak_kernel(length: float, angle: float, width: float) -> Tensor:
    """A soft line through the middle with peak 1, [k, k]: fading towards both ends, Gaussian across."""
    reach = math.ceil(length / 2 + 3 * width)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    along = math.sin(angle) * x + math.cos(angle) * y
    across = math.cos(angle) * x - math.sin(angle) * y
    fade = (1 - (2 * along / length) ** 2).clamp(min=0)
    return fade * torch.exp(-0.5 * (across / width) ** 2)


def low_light(pictures: Tensor, gamma: float, gain: float) -> Tensor:
    """An underexposed picture: gain x^gamma, for pictures in 0..1."""
    return gain * pictures.clamp(0, 1) ** gamma


def polyline_mask(height: int, width: int, polylines: Sequence[Sequence[Point]], widths: Sequence[float]) -> Tensor:
    """1 under the strokes and 0 elsewhere, [1, 1, H, W]; vertices (x, y) and stroke widths in pixels, round joints."""
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for vertices, stroke in zip(polylines, widths, strict=True):
        pen.line([*vertices], fill=255, width=max(1, round(stroke)))
        for x, y in vertices:
            pen.ellipse((x - stroke / 2, y - stroke / 2, x + stroke / 2, y + stroke / 2), fill=255)
    levels = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return (levels > 0).view(1, 1, height, width).float()


def paint_white(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures with white where the mask [1, 1, H, W] is 1."""
    mask = mask.to(pictures)
    return pictures * (1 - mask) + mask
