"""Resize pictures: torch with antialias where it matches Pillow to 1e-6, Pillow itself for Lanczos."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadValueError

Method = Literal["bicubic", "bilinear", "area", "lanczos", "nearest"]
METHODS: tuple[Method, ...] = get_args(Method)


def resize(pictures: Tensor, height: int, width: int, method: Method = "bicubic") -> Tensor:
    """[B, C, H, W] -> [B, C, height, width], same device and dtype; not clamped: bicubic and lanczos overshoot at edges.

    Raises BadValueError for an unknown method or a size below one pixel.
    """
    if method not in METHODS:
        raise BadValueError(f"{method!r} is no way to resize.", way_out=f"Use one of {', '.join(METHODS)}.")
    if height < 1 or width < 1:
        raise BadValueError(f"cannot resize to {width} x {height} pixels.", way_out="Choose a size of at least 1 x 1.")
    if pictures.shape[-2:] == (height, width):
        return pictures
    if method == "lanczos":
        return lanczos(pictures, height, width)
    if method in ("bilinear", "bicubic"):
        return F.interpolate(pictures, (height, width), mode=method, antialias=True)
    return F.interpolate(pictures, (height, width), mode="nearest-exact" if method == "nearest" else method)


def lanczos(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pillow's Lanczos on float channels, one plane after the other."""
    result = torch.empty(*pictures.shape[:2], height, width, dtype=pictures.dtype, device=pictures.device)
    for picture, resized in zip(pictures, result, strict=True):
        for plane, target in zip(picture, resized, strict=True):
            image = Image.fromarray(plane.detach().to("cpu", torch.float32).contiguous().numpy())
            target.copy_(torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.LANCZOS))))
    return result
