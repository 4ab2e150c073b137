"""What the tests of InstaRevive's training share: tiny priors as our recipes write them, and a batch to take a turn on."""

from __future__ import annotations

from pathlib import Path

import torch
from kintsugi.core.models.byte_text import ByteTextEncoder
from kintsugi.core.models.mini import build_pixart, build_unet, unet_config
from kintsugi.core.weights.files import write_weights
from kintsugi.training.data import Batch
from kintsugi.training.stages.instarevive import InstaReviveStage
from torch import nn

NETWORK = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 16, "out_channels": 32, "num_layers": 2, "cross_attention_dim": 16,
    "sample_size": 8, "caption_channels": 12,
}  # fmt: skip
TEXT = {"tokens": 6, "width": 12, "pooled": 4}


def write_prior(path: Path) -> Path:
    torch.manual_seed(3)
    parts = nn.ModuleDict({"transformer": build_pixart(NETWORK), "text": ByteTextEncoder(**TEXT)})
    config = {"kind": "prior", "family": "pixart-alpha", "transformer": NETWORK, "text": TEXT, "vae": "embedded"}
    write_weights(path, dict(parts.state_dict()), config)
    return path


def write_unet_prior(path: Path) -> Path:
    """The same with a U-Net of SD2.1-VAE16's class."""
    torch.manual_seed(3)
    config = unet_config((8, 8), 16, 1, TEXT["width"], 4)
    parts = nn.ModuleDict({"unet": build_unet(config), "text": ByteTextEncoder(**TEXT)})
    told = {"kind": "prior", "family": "sd21-vae16", "unet": config, "text": TEXT, "vae": "embedded"}
    write_weights(path, dict(parts.state_dict()), told)
    return path


def batch_of(rows: int = 2, captions: tuple[str, ...] = ("", "")) -> Batch:
    torch.manual_seed(1)
    clean = torch.rand(rows, 3, 32, 32)
    spoilt = (clean + 0.1 * torch.randn_like(clean)).clamp(0, 1)
    return Batch(tuple("ab")[:rows], clean, spoilt, captions[:rows], torch.zeros(rows, 6))


def losses(
    stage: InstaReviveStage, turn: str, wanted: set[str], batch: Batch | None = None, **memory: torch.Tensor
) -> dict[str, torch.Tensor]:
    batch = batch or batch_of()
    torch.manual_seed(2)
    return stage.losses(turn, stage.networks[turn], batch, frozenset(wanted), memory)
