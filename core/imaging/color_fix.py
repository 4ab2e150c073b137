"""Give a restored picture the colours of its source. Wavelet and AdaIN as StableSR (arXiv 2305.07015) and its descendants have them.

All work on whole pictures after stitching, on the tensor's device, in strips of rows: beside the result they hold a few
megabytes, whatever the size of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadValueError
from .resize import resize

Method = Literal["wavelet", "adain", "lab", "none"]
METHODS: tuple[Method, ...] = get_args(Method)

LEVELS = 5
HALO = 2**LEVELS - 1  # pixels that the five blurs reach in each direction: 1 + 2 + 4 + 8 + 16
STRIP_PIXELS = 2**19
ADAIN_EPSILON = 1e-5


def fix_colors(picture: Tensor, reference: Tensor, method: Method = "wavelet", strength: float = 1.0) -> Tensor:
    """picture [B, 3, H, W] with the colours of reference [B or 1, 3, h, w], both sRGB 0..1; not clamped.

    wavelet: the coarsest of five a-trous bands comes from the reference. adain: mean and standard deviation per channel do.
    lab: the coarsest band of Lab's a* and b* only, so that the restored lightness stays. none: unchanged.
    strength: 0 keeps the picture, 1 is the full correction. Raises BadValueError.
    """
    if method not in METHODS:
        raise BadValueError(f"{method!r} is no colour fix.", way_out=f"Use one of {', '.join(METHODS)}.")
    if reference.shape[0] not in (1, picture.shape[0]):
        raise BadValueError(
            f"{reference.shape[0]} reference pictures for {picture.shape[0]} pictures.",
            way_out="Give one, or as many as there are pictures.",
        )
    if method == "none" or strength == 0:
        return picture
    fix = {"wavelet": wavelet_fix, "adain": adain_fix, "lab": lab_fix}[method]
    return fix(picture, reference.to(picture.device, picture.dtype), strength)


def wavelet_fix(picture: Tensor, reference: Tensor, strength: float = 1.0) -> Tensor:
    """high(picture) + low(reference). The bands are linear, so that is picture + low(reference - picture): one pyramid."""
    reference = same_size(reference, picture)
    return in_strips(lambda own, other: own + strength * low_frequencies(other - own), picture, reference)


def adain_fix(picture: Tensor, reference: Tensor, strength: float = 1.0) -> Tensor:
    """(c - mean_c) / s_c * s_s + mean_s per channel, s = sqrt(unbiased variance + 1e-5); the sizes may differ."""
    own_mean, own_deviation = channel_statistics(picture)
    mean, deviation = channel_statistics(reference)
    gain = deviation / own_deviation
    return (picture * (1 + strength * (gain - 1))).add_(strength * (mean - own_mean * gain))


def lab_fix(picture: Tensor, reference: Tensor, strength: float = 1.0) -> Tensor:
    """The low band of a* and b* (CIE Lab, D65) from the reference; L* and the fine colour detail stay the picture's."""
    from kornia.color import lab_to_rgb, rgb_to_lab

    def fix(own: Tensor, other: Tensor) -> Tensor:
        lab, wanted = rgb_to_lab(own.clamp(0, 1)), rgb_to_lab(other.clamp(0, 1))
        shift = strength * low_frequencies((wanted - lab)[:, 1:])
        return lab_to_rgb(torch.cat([lab[:, :1], lab[:, 1:] + shift], dim=1), clip=False)

    return in_strips(fix, picture, same_size(reference, picture))


def same_size(reference: Tensor, picture: Tensor) -> Tensor:
    """reference [B, 3, h, w] resized to the picture's sides."""
    return resize(reference, picture.shape[2], picture.shape[3], "bicubic")


def low_frequencies(pictures: Tensor) -> Tensor:
    """What five a-trous blurs leave of [B, C, H, W]: level i has the kernel (1 2 1; 2 4 2; 1 2 1) / 16 dilated by 2^i."""
    for level in range(LEVELS):
        radius = 2**level
        for padding, size in (((0, 0, radius, radius), 2), ((radius, radius, 0, 0), 3)):
            padded, length = F.pad(pictures, padding, mode="replicate"), pictures.shape[size]
            middle = padded.narrow(size, radius, length)
            pictures = (padded.narrow(size, 0, length) + 2 * middle + padded.narrow(size, 2 * radius, length)) / 4
    return pictures


def channel_statistics(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, C, 1, 1]; a picture of one pixel has variance 0."""
    variance, mean = torch.var_mean(pictures, dim=(2, 3), keepdim=True, correction=min(1, pictures[0, 0].numel() - 1))
    return mean, (variance + ADAIN_EPSILON).sqrt()


def in_strips(fix: Callable[[Tensor, Tensor], Tensor], picture: Tensor, reference: Tensor) -> Tensor:
    """fix(picture, reference) over strips of rows of one picture; each strip carries the halo its blurs reach into."""
    result = torch.empty_like(picture)
    height, width = picture.shape[2:]
    rows = max(1, STRIP_PIXELS // width)
    for index in range(picture.shape[0]):
        own, other = picture[index : index + 1], reference[min(index, reference.shape[0] - 1)][None]
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - HALO, 0), min(bottom + HALO, height)
            fixed = fix(own[:, :, first:last], other[:, :, first:last])
            result[index, :, top:bottom] = fixed[0, :, top - first : bottom - first]
    return result
