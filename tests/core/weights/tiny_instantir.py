"""InstantIR's files in the published names at tiny widths: every layer of the release, so every name of the manifest."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from golden_files import GOLDEN
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.mini import build_unet
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.runtime import LocalHost
from torch import Tensor, nn

MANIFEST: dict[str, Any] = json.loads((GOLDEN / "instantir" / "manifest.json").read_text(encoding="utf-8"))
FILES: dict[str, Any] = MANIFEST["files"]
UNET: dict[str, Any] = {
    **MANIFEST["sdxl_unet_config"], "block_out_channels": [4, 8, 12], "attention_head_dim": [1, 2, 3], "norm_num_groups": 2,
    "cross_attention_dim": 6, "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 32,
}  # fmt: skip
RESAMPLER = ResamplerConfig(dim=8, heads=1, num_queries=3, embedding_dim=12, output_dim=6)
RANK = 4
ENCODER: dict[str, Any] = {
    "hidden_size": RESAMPLER.embedding_dim, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 56,
}  # fmt: skip


@cache
def unet() -> Any:
    torch.manual_seed(0)
    return build_unet(UNET).eval()


def empty_dcp() -> DCP:
    return DCP(cross_attention_widths(unet()), unet().time_embedding.linear_2.out_features, RESAMPLER)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@cache
def dcp_tensors() -> dict[str, Tensor]:
    """Nested names: `image_proj.*` and `ip_adapter.<index>.*`."""
    return drawn(shapes_of(empty_dcp()))


@cache
def aggregator_tensors() -> dict[str, Tensor]:
    return drawn(shapes_of(Aggregator(build_unet(UNET))))


def write_dinov2(folder: Path, **changes: Any) -> Any:
    """A DINOv2 with random weights in transformers' layout."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    network = Dinov2Model(Dinov2Config(**{**ENCODER, **changes})).eval()
    network.save_pretrained(folder)
    return network


def place_of(host: LocalHost, name: str = "") -> Path:
    """Below `kintsugi/instantir` of the test's models folder."""
    folder = host.folders.models / "kintsugi" / "instantir"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
