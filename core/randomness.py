"""Noise that depends on the picture's own seed alone, never on its place in a batch, the device or earlier draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_step: ContextVar[int] = ContextVar("kintsugi_seed_step", default=1)


@contextmanager
def one_seed_for_all() -> Iterator[None]:
    """Inside the block every picture of a batch has the same seed, as if each were alone."""
    token = _step.set(0)
    try:
        yield
    finally:
        _step.reset(token)


def picture_generators(seed: int, count: int) -> list[torch.Generator]:
    """One CPU generator per picture; picture i has seed + i, as if it were restored alone with that seed (see one_seed_for_all())."""
    return [torch.Generator("cpu").manual_seed((seed + _step.get() * index) % 2**63) for index in range(count)]


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise [B, *shape] in float32 on the CPU, element i from generators[i]."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def seed_for(seed: int, purpose: str) -> int:
    """A seed in 0..2^63 - 1 for something else that a picture with this seed draws, so that it resembles nothing of its noise."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "big") >> 1
