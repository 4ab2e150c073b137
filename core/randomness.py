"""Noise that depends on the picture's own seed alone, never on its place in a batch, the device or earlier draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def picture_generators(seed: int, count: int) -> list[torch.Generator]:
    """One CPU generator per picture; picture i has seed + i, as if it were restored alone with that seed."""
    return [torch.Generator("cpu").manual_seed((seed + index) % 2**63) for index in range(count)]


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise [B, *shape] in float32 on the CPU, element i from generators[i]."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def seed_for(seed: int, purpose: str) -> int:
    """A seed in 0..2^63 - 1 for something else that a picture with this seed draws, so that it resembles nothing of its noise."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "big") >> 1
