"""Compression by real encoders (Pillow's JPEG, WebP and AVIF)."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from ..errors import MissingPackageError

Codec = Literal["jpeg", "webp", "avif"]
ChromaSampling = Literal["4:2:0", "4:4:4"]


def compress(picture: Tensor, codec: Codec, quality: int, chroma: ChromaSampling = "4:2:0") -> Tensor:
    """One picture [3, H, W] in 0..1 written and read again at 8 bits; quality 1..100.

    chroma: colour at half or full resolution, for JPEG and AVIF; lossy WebP is always 4:2:0.
    """
    levels = (picture.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(levels.cpu().numpy()).save(buffer, **_writer_options(codec, quality, chroma))
    with Image.open(buffer) as decoded:
        pixels = np.array(decoded.convert("RGB"))
    return torch.from_numpy(pixels).to(picture.device).permute(2, 0, 1).to(picture.dtype) / 255


def _writer_options(codec: Codec, quality: int, chroma: ChromaSampling) -> dict[str, Any]:
    if codec == "jpeg":
        return {"format": "JPEG", "quality": quality, "subsampling": chroma}
    if not features.check(codec):
        raise MissingPackageError(
            f"This Pillow was built without {codec.upper()}.", way_out="Install Pillow 11.3 or newer from its wheels, or choose JPEG."
        )
    if codec == "webp":
        return {"format": "WEBP", "quality": quality, "method": 2}
    # One thread: the same bytes whatever the machine's number of cores.
    return {"format": "AVIF", "quality": quality, "subsampling": chroma, "speed": 8, "max_threads": 1}
