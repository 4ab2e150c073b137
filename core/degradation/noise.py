"""Noise of cameras and channels. Pictures are [B, 3, H, W] in 0..1; the draws come from the caller."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def gaussian_noise(draw: Tensor, sigmas: Tensor) -> Tensor:
    """Noise to add: standard normal draw [B, 3 or 1, H, W] times each picture's sigma [B] (8-bit units) / 255."""
    return draw * (sigmas.to(draw) / 255).view(-1, 1, 1, 1)


def poisson_noise(pictures: Tensor, generators: Sequence[torch.Generator], scales: Tensor, grey: bool) -> Tensor:
    """Shot noise to add, [B, 3, H, W] or, when grey, [B, 1, H, W]; one CPU generator and one scale [B] per picture.

    The picture, cut to 8 bits, is taken as photon counts out of V = 2^ceil(log2(number of distinct values)).
    """
    light = _luma(pictures) if grey else pictures
    light = (light * 255).round().clamp(0, 255) / 255
    rows = []
    for picture, generator in zip(light.split(1), generators, strict=True):
        values = float(2 ** (_distinct_values(picture) - 1).bit_length())
        counts = torch.poisson((picture * values).cpu(), generator=generator).to(picture)
        rows.append(counts / values - picture)
    return torch.cat(rows) * scales.to(light).view(-1, 1, 1, 1)


def salt_and_pepper(pictures: Tensor, draw: Tensor, amounts: Tensor) -> Tensor:
    """Pixels turned black or white, half each: those where the uniform draw [B, 1, H, W] lies below amounts [B]."""
    amounts = amounts.to(draw).view(-1, 1, 1, 1)
    white = (draw < amounts / 2).to(pictures)
    hit = (draw < amounts).to(pictures)
    return pictures * (1 - hit) + white


def _luma(pictures: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, dtype=pictures.dtype, device=pictures.device).view(1, 3, 1, 1)
    return (pictures * weights).sum(dim=1, keepdim=True)


def _distinct_values(picture: Tensor) -> int:
    levels = (picture * 255).round().long().flatten()
    return int((torch.bincount(levels, minlength=256) > 0).sum())
