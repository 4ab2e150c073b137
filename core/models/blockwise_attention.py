"""Self-attention over more positions than the device holds: a block of queries against one block of keys after the other."""

from __future__ import annotations

from math import ceil, isqrt

import torch
from torch import Tensor

from .vae_layers import SelfAttention, Statistics, normalise


def block_size(positions: int, channels: int, elements: int) -> int:
    """Positions per block, for blocks of one length whose tokens and scores have at most `elements` numbers."""
    largest = max(1, min(isqrt(elements), elements // channels))
    return ceil(positions / ceil(positions / largest))


def attend_in_blocks(queries: Tensor, *, layer: SelfAttention, statistics: Statistics, context: Tensor, block: int) -> Tensor:
    """The layer's result [B, C, n], residual connection included, at the positions of queries [B, C, n].

    context [C, N]: all positions, on any device; statistics: those of the layer's norm over them; block: keys per block.
    """
    attention = layer.attention

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    def normalised(values: Tensor) -> Tensor:
        return normalise(values, layer.norm, statistics).transpose(1, 2)

    found = _RunningSoftmax(heads(attention.to_q(normalised(queries))))
    for keys in context[None].split(block, dim=2):
        tokens = normalised(keys.to(queries))
        found.add(heads(attention.to_k(tokens)), heads(attention.to_v(tokens)))
    projected: Tensor = attention.to_out[0](found.result().transpose(1, 2).flatten(2).to(queries))
    return queries + projected.transpose(1, 2)


class _RunningSoftmax:
    """softmax(q k^T / sqrt(d)) v in float32 over keys that come one block at a time (Rabe and Staats, 2021)."""

    def __init__(self, query: Tensor) -> None:
        """query [B, heads, n, d]."""
        self._query = query.float() * query.shape[-1] ** -0.5
        self._largest = torch.full_like(self._query[..., :1], -torch.inf)
        self._weights = torch.zeros_like(self._largest)
        self._values = torch.zeros_like(self._query)

    def add(self, key: Tensor, value: Tensor) -> None:
        """key and value [1, heads, m, d]."""
        scores = self._query @ key.float().transpose(-1, -2)
        largest = torch.maximum(self._largest, scores.amax(-1, keepdim=True))
        weights = scores.sub_(largest).exp_()
        kept = (self._largest - largest).exp_()
        self._weights = self._weights * kept + weights.sum(-1, keepdim=True)
        self._values = self._values * kept + weights @ value.float()
        self._largest = largest

    def result(self) -> Tensor:
        """[B, heads, n, d]."""
        return self._values / self._weights
