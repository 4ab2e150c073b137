"""What InstantIR's image encoder sees of a picture, and the tokens it makes of that (InstantIR, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..imaging.resize import resize
from ..runtime import current_host, require_finite, run_model

if TYPE_CHECKING:
    from transformers import Dinov2Model

Crop = Literal["published", "whole image"]
CROPS: tuple[Crop, ...] = get_args(Crop)

SHORT_SIDE, CENTRE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@torch.inference_mode()
def image_tokens(encoder: Dinov2Model, pictures: Tensor, crop: Crop = "published") -> tuple[Tensor, Tensor]:
    """Tokens [B, 1 + n, D] of pictures [B, H, W, 3] in 0..1, and those [1, 1 + n, D] of no picture at all, for guidance.

    crop: `published` shows the encoder the middle 224 pixels of a picture whose short side is 256, so that its outermost
    ring is never seen; `whole image` shows all of it, the short side 224 pixels long, each side in whole patches.
    """
    require_finite(pictures, "The picture")
    planes = pictures.permute(0, 3, 1, 2)
    seen = shown(encoder, planes, crop)

    def run(rows: Tensor) -> Tensor:
        states: Tensor = encoder(pixel_values=rows).last_hidden_state
        return states

    parameter = next(encoder.parameters())
    rows = torch.cat([seen, torch.zeros_like(seen[:1])]).to(current_host().device, parameter.dtype)
    tokens = run_model(run, rows).float()
    return tokens[:-1], tokens[-1:]


def shown(encoder: Dinov2Model, planes: Tensor, crop: Crop = "published") -> Tensor:
    """What the encoder is given [B, 3, h, w] for pictures [B, 3, H, W] in 0..1; zeros of that shape are no picture at all."""
    return normalised(_centre(planes) if crop == "published" else _whole(planes, patch_of(encoder)))


def patch_of(encoder: Dinov2Model) -> int:
    """Pixels of a patch along a side."""
    patch = encoder.config.patch_size
    assert isinstance(patch, int)
    return patch


def _centre(planes: Tensor) -> Tensor:
    height, width = planes.shape[-2:]
    factor = SHORT_SIDE / min(height, width)
    resized = resize(planes, round(height * factor), round(width * factor), "bicubic").clamp(0, 1)
    top, left = ((side - CENTRE) // 2 for side in resized.shape[-2:])
    return resized[..., top : top + CENTRE, left : left + CENTRE]


def _whole(planes: Tensor, patch: int) -> Tensor:
    factor = CENTRE / min(planes.shape[-2:])
    height, width = (patch * max(1, round(side * factor / patch)) for side in planes.shape[-2:])
    return resize(planes, height, width, "bicubic").clamp(0, 1)


def normalised(planes: Tensor) -> Tensor:
    """Planes [B, 3, H, W] in 0..1 as DINOv2 was trained on them."""
    mean, deviation = (torch.tensor(values, device=planes.device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (planes - mean) / deviation
