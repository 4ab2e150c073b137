"""InstantIR's Resampler: a fixed number of tokens out of however many the image encoder gives (InstantIR, section 3; Perceiver).

Parameter names are those of the published adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ResamplerConfig:
    """dim: width inside; dim_head x heads: inner width of the attention; embedding_dim: width of the image tokens that come
    in; output_dim: width of those that go out; num_queries: how many. The defaults are the published ones."""

    dim: int = 1280
    depth: int = 4
    dim_head: int = 64
    heads: int = 20
    num_queries: int = 64
    embedding_dim: int = 1024
    output_dim: int = 2048
    ff_mult: int = 4


class ResamplerAttention(nn.Module):
    """The queries look at the image tokens and at themselves."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        inner = config.dim_head * config.heads
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.dim, bias=False)

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """[B, Q, dim] from image tokens [B, N, dim] and queries [B, Q, dim]."""
        tokens, queries = self.norm1(tokens), self.norm2(queries)
        keys, values = self.to_kv(torch.cat([tokens, queries], dim=1)).chunk(2, dim=-1)
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(queries), keys, values))
        attended = F.scaled_dot_product_attention(*heads)
        output: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return output


class ResamplerLayer(nn.ModuleList):
    """Attention, then a feed-forward network, each added to the queries."""

    def __init__(self, config: ResamplerConfig) -> None:
        inner = config.dim * config.ff_mult
        widen, narrow = nn.Linear(config.dim, inner, bias=False), nn.Linear(inner, config.dim, bias=False)
        super().__init__([ResamplerAttention(config), nn.Sequential(nn.LayerNorm(config.dim), widen, nn.GELU(), narrow)])

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """[B, Q, dim] from image tokens [B, N, dim] and queries [B, Q, dim]."""
        queries = queries + self[0](tokens, queries)
        result: Tensor = queries + self[1](queries)
        return result


class Resampler(nn.Module):
    """Image tokens [B, N, embedding_dim] to prompt-like tokens [B, num_queries, output_dim]. It knows no time."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(1, config.num_queries, config.dim) / config.dim**0.5)
        self.proj_in = nn.Linear(config.embedding_dim, config.dim)
        self.proj_out = nn.Linear(config.dim, config.output_dim)
        self.norm_out = nn.LayerNorm(config.output_dim)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, Q, output_dim] from image tokens [B, N, embedding_dim]."""
        tokens = self.proj_in(tokens)
        queries = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(tokens, queries)
        resampled: Tensor = self.norm_out(self.proj_out(queries))
        return resampled
