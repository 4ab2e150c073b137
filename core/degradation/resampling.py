"""Resizing as degradation models do it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

ResizeMode = Literal["area", "bilinear", "bicubic", "bilinear-antialiased", "bicubic-antialiased"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic", "bilinear-antialiased", "bicubic-antialiased")


def resize_pictures(pictures: Tensor, height: int, width: int, mode: ResizeMode) -> Tensor:
    """Pictures [B, C, H, W] at the new size.

    The plain modes sample without a low-pass filter (they alias when shrinking, as in Real-ESRGAN); the antialiased
    ones agree with Pillow to 1e-6. Bicubic overshoots: values may leave 0..1.
    """
    if mode == "area":
        return functional.interpolate(pictures, (height, width), mode="area")
    kernel, _, antialias = mode.partition("-")
    return functional.interpolate(pictures, (height, width), mode=kernel, align_corners=False, antialias=bool(antialias))
