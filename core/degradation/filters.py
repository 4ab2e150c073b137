"""Filtering with one kernel per picture, and unsharp masking. Pictures are [B, C, H, W] in 0..1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .kernels import gaussian_profile


def reflect_pad(pictures: Tensor, rows: int, columns: int) -> Tensor:
    """Mirror without repeating the edge, also where the margin is wider than the picture (it then mirrors again)."""
    height, width = pictures.shape[-2:]
    if rows < height and columns < width:
        return functional.pad(pictures, (columns, columns, rows, rows), mode="reflect")
    row_index = _mirrored_index(height, rows).to(pictures.device)
    column_index = _mirrored_index(width, columns).to(pictures.device)
    return pictures.index_select(-2, row_index).index_select(-1, column_index)


def _mirrored_index(length: int, margin: int) -> Tensor:
    period = max(2 * (length - 1), 1)
    place = torch.arange(-margin, length + margin) % period
    return torch.minimum(place, period - place) if length > 1 else torch.zeros_like(place)


def filter_pictures(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each picture [B, C, H, W] with its own kernel [B, k_h, k_w] (odd sizes), reflect padding."""
    batch, channels = pictures.shape[:2]
    rows, columns = kernels.shape[-2:]
    padded = reflect_pad(pictures, rows // 2, columns // 2).flatten(0, 1)[None]
    weights = kernels.to(pictures).repeat_interleave(channels, dim=0)[:, None]
    return functional.conv2d(padded, weights, groups=batch * channels).reshape(pictures.shape)


def separable_filter(pictures: Tensor, profiles: Tensor) -> Tensor:
    """Correlate each picture with the outer product of its profile [B, k] with itself, one axis after the other."""
    return filter_pictures(filter_pictures(pictures, profiles[:, None, :]), profiles[:, :, None])


def sharpen(pictures: Tensor, weight: float = 0.5, radius: int = 50, threshold: float = 10.0) -> Tensor:
    """Unsharp mask where the residual exceeds `threshold` (8-bit units), with a softened mask. Real-ESRGAN's USM.

    radius: kernel size in pixels, the next odd number where even; its sigma is 0.3 ((size - 1) / 2 - 1) + 0.8.
    """
    size = radius + 1 - radius % 2
    profile = gaussian_profile(size, 0.3 * ((size - 1) / 2 - 1) + 0.8).expand(pictures.shape[0], -1)
    residual = pictures - separable_filter(pictures, profile)
    mask = (residual.abs() * 255 > threshold).to(pictures.dtype)
    soft_mask = separable_filter(mask, profile)
    return soft_mask * (pictures + weight * residual).clamp(0, 1) + (1 - soft_mask) * pictures
