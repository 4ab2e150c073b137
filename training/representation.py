"""REPA: features of the network in training brought near to the tokens that DINOv2 makes of the clean picture (GenDR, equation 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.imaging.resize import resize
from ..core.methods.dcp_tokens import normalised, patch_of
from ..core.weights import embedded
from ..core.weights.files import NetworkFile, read_weights
from ..core.weights.instantir_dcp import ENCODER
from ..core.weights.instantir_encoder import dinov2_configs, encoder_of, load_encoder
from .bases import is_dry

if TYPE_CHECKING:
    from transformers import Dinov2Model

# The block whose features are projected: 16 pixels per token at an eighth of the picture's side in the latent.
BLOCK = "down_blocks.0"


def projector(channels: int, width: int, tokens: int) -> nn.Sequential:
    """h of equation 3, over tokens: three linear layers with SiLU between."""
    return nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, tokens))


def as_tokens(features: Tensor) -> Tensor:
    """[B, h w, C], row by row, of features [B, C, h, w]."""
    return features.flatten(2).transpose(1, 2)


@torch.no_grad()
def teacher_tokens(encoder: Dinov2Model, pictures: Tensor, height: int, width: int) -> Tensor:
    """DINOv2's patch tokens [B, height * width, D] float32 of pictures [B, 3, H, W] in 0..1, resized so that there is one for each
    feature."""
    patch = patch_of(encoder)
    seen = normalised(resize(pictures, patch * height, patch * width, "bicubic").clamp(0, 1))
    states: Tensor = encoder(pixel_values=seen.to(next(encoder.parameters()).dtype)).last_hidden_state
    return states[:, 1:].float()


def read_teacher(name: str) -> Dinov2Model:
    """DINOv2. name: a folder of the models folder, such as clip_vision/dinov2-base, or `embedded`, the one in the mini DCP's file. Raises
    WeightsError."""
    from transformers import Dinov2Config, Dinov2Model

    if is_dry():
        return Dinov2Model(Dinov2Config(image_size=518))
    if name == "embedded":
        tensors, config = read_weights(embedded.INSTANTIR["DCP"], ENCODER)
        return encoder_of(NetworkFile(tensors, config["encoder"], str(embedded.INSTANTIR["DCP"])), torch.float32)
    return load_encoder(name, None, dinov2_configs().get(name, {}).get("hidden_size", 0), torch.float32)
