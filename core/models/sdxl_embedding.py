"""SDXL's whole time embedding: timestep, pooled text and size ids in one vector, as U-Net and Aggregator make it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sdxl_embedding(network: Any, timestep: Tensor, pooled: Tensor, size_ids: Tensor) -> Tensor:
    """[B, T] from timestep [B] or [1], pooled text [B, P] and size ids [B, 6] (height, width, top, left, height, width).

    network: a U-Net or what has its time_proj, time_embedding, add_time_proj and add_embedding.
    """
    dtype = pooled.dtype
    rows = pooled.shape[0]
    time = network.time_embedding(network.time_proj(timestep.expand(rows)).to(dtype))
    sizes = network.add_time_proj(size_ids.flatten()).reshape(rows, -1)
    embedding: Tensor = time + network.add_embedding(torch.cat([pooled, sizes.to(dtype)], dim=-1))
    return embedding
