"""Blur kernels of the second-order degradation model (Real-ESRGAN), in float64.

With r the offset from the centre, S = R(rotation) diag(sigma_x^2, sigma_y^2) R(rotation)^T and q = r^T S^-1 r:
Gaussian exp(-q / 2), generalised exp(-q^beta / 2), plateau 1 / (1 + q^beta), each divided by its sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_profile(size: int, sigma: float) -> Tensor:
    """One axis of an isotropic Gaussian kernel: [size], sum 1. The outer product with itself is `gaussian_kernel`."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    profile = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return profile / profile.sum()


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float | None = None, rotation: float = 0.0) -> Tensor:
    """Gaussian [size, size] with sum 1; sigmas in pixels (isotropic without sigma_y), rotation in radians."""
    return _normalised(torch.exp(-0.5 * _squared_radius(size, sigma_x, sigma_y, rotation)))


def generalised_kernel(size: int, beta: float, sigma_x: float, sigma_y: float | None = None, rotation: float = 0.0) -> Tensor:
    """Generalised Gaussian [size, size]: beta 1 is the Gaussian, below it has heavier tails, above a flatter top."""
    return _normalised(torch.exp(-0.5 * _squared_radius(size, sigma_x, sigma_y, rotation) ** beta))


def plateau_kernel(size: int, beta: float, sigma_x: float, sigma_y: float | None = None, rotation: float = 0.0) -> Tensor:
    """Plateau-shaped kernel [size, size]."""
    return _normalised(1.0 / (1.0 + _squared_radius(size, sigma_x, sigma_y, rotation) ** beta))


def sinc_kernel(size: int, cutoff: float, pad_to: int | None = None) -> Tensor:
    """Circular low-pass filter that rings, [size, size] or zero-padded to [pad_to, pad_to]; cutoff in radians per pixel."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    radius = torch.sqrt(offsets[:, None] ** 2 + offsets[None, :] ** 2)
    ring = cutoff * bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel = _normalised(torch.where(radius > 0, ring, cutoff**2 / (4 * math.pi)))
    return kernel if pad_to is None else padded_kernel(kernel, pad_to)


def bessel_j1(x: Tensor) -> Tensor:
    """Bessel function of the first kind and order one, to float64's precision for float64 input of any shape.

    The mean of cos(t - x sin t) over one period, which equally spaced points give exactly once they outnumber x by some
    tens. torch.special.bessel_j1 is off by up to 4e-7 (torch 2.13).
    """
    points = math.ceil(float(x.abs().max())) + 60
    angle = torch.arange(points, dtype=x.dtype, device=x.device) * (2 * math.pi / points)
    return torch.cos(angle - x[..., None] * torch.sin(angle)).mean(dim=-1)


def padded_kernel(kernel: Tensor, size: int) -> Tensor:
    """The kernel [k, k] in the middle of zeros [size, size]; both sizes odd."""
    margin = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (margin, margin, margin, margin))


def _squared_radius(size: int, sigma_x: float, sigma_y: float | None, rotation: float) -> Tensor:
    """q = r^T S^-1 r at every position of a [size, size] kernel; rows are y, columns are x."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    if sigma_y is None:
        return (x**2 + y**2) / sigma_x**2
    along = math.cos(rotation) * x + math.sin(rotation) * y
    across = math.cos(rotation) * y - math.sin(rotation) * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()
