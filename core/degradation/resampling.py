"""Resizing as degradation models do it."""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import Tensor
from torch.nn import functional

from ..imaging.resize import Method, resize

ResizeMode = Literal["area", "bilinear", "bicubic", "bilinear-antialiased", "bicubic-antialiased"]
RESIZE_MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)


def resize_pictures(pictures: Tensor, height: int, width: int, mode: ResizeMode) -> Tensor:
    """Pictures [B, C, H, W] at the new size.

    The plain modes sample without a low-pass filter (they alias when shrinking, as in Real-ESRGAN); the antialiased
    ones agree with Pillow to 1e-6. Bicubic overshoots: values may leave 0..1.
    """
    method, _, antialiased = mode.partition("-")
    if antialiased or mode == "area":
        return resize(pictures, height, width, cast(Method, method))
    return functional.interpolate(pictures, (height, width), mode=method, align_corners=False)
