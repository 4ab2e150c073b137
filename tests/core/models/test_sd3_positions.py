"""SD3's positions by their factors: the same tokens to the bit, or the table itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kintsugi.core.models.folding import memory_of
from kintsugi.core.models.mini import build_sd3_transformer
from kintsugi.core.models.sd3_positions import FactoredPatchEmbed, computed_positions, factor_positions

CONFIG: dict[str, Any] = {
    "sample_size": 16, "patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 3,
    "joint_attention_dim": 12, "caption_projection_dim": 24, "pooled_projection_dim": 10, "out_channels": 4, "pos_embed_max_size": 48,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (10, 14), (38, 6), (96, 96)])
def test_the_factors_give_the_tokens_of_the_table_to_the_bit(height: int, width: int, dtype: torch.dtype) -> None:
    transformer = build_sd3_transformer(CONFIG).to(dtype)
    latent = torch.randn(2, 4, height, width, dtype=dtype)
    expected = transformer.pos_embed(latent)
    before = memory_of(transformer.pos_embed)
    factor_positions(transformer)
    assert isinstance(transformer.pos_embed, FactoredPatchEmbed)
    assert torch.equal(transformer.pos_embed(latent), expected)
    assert memory_of(transformer.pos_embed) < before / 15


def test_a_table_that_has_no_factors_stays_and_so_does_one_without_values() -> None:
    transformer = build_sd3_transformer(CONFIG)
    transformer.pos_embed.pos_embed[0, 5, 3] += 1e-6
    factor_positions(transformer)
    assert not isinstance(transformer.pos_embed, FactoredPatchEmbed)
    with torch.device("meta"):
        empty = build_sd3_transformer(CONFIG)
    factor_positions(empty)
    assert not isinstance(empty.pos_embed, FactoredPatchEmbed)


def test_the_computed_table_is_the_one_a_fresh_transformer_has() -> None:
    assert torch.equal(computed_positions(CONFIG), build_sd3_transformer(CONFIG).pos_embed.pos_embed)
