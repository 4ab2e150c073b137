"""One picture as the bytes of an 8-bit PNG, and back: how workers and archives pass pictures on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .reading import explained
from .writing import one_picture, quantised


def to_png(picture: Tensor) -> bytes:
    """A picture [1, H, W, 3] in 0..1, rounded; equal pictures give equal bytes. Raises as one_picture() does."""
    file = io.BytesIO()
    Image.fromarray(quantised(one_picture(picture, 3, "picture"), 8)).save(file, format="PNG", compress_level=4)
    return file.getvalue()


def from_png(content: bytes, where: str) -> Tensor:
    """The picture [1, H, W, 3] float32 in 0..1; PictureError naming `where` it came from for bytes that are no whole PNG."""
    with explained(Path(where)), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        levels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(levels.astype(np.float32) / np.float32(255))[None]
