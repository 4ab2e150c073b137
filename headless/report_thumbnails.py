"""Small pictures of large files, one file in memory at a time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.imaging.reading import (
    ORIENTATION,
    alpha_channel,
    colour_channels,
    explained,
    is_deep,
    open_image,
    read_samples,
    require_room,
    upright,
)
from ..core.imaging.writing import quantised

LONGEST_SIDE = 160
QUALITY = 82
BEHIND_TRANSPARENCY = (176, 176, 176)
# Pillow averages colours when it makes these smaller; of other kinds it picks single pixels.
_AVERAGED = ("L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB")


@dataclass(frozen=True)
class Thumbnail:
    """jpeg: the file of the small picture. width, height: of the large one, upright."""

    jpeg: bytes
    width: int
    height: int


def make_thumbnail(path: Path) -> Thumbnail:
    """Raises what reading a photo raises: FileAccessError, PictureError and OutOfMemoryError."""
    with explained(path), open_image(path) as image:
        width, height = image.size
        # A JPEG can be decoded at an eighth of its size.
        image.draft(None, (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))
        require_room(path, image.size)
        colour, alpha = _deep_channels(path, image) if is_deep(image) else _channels(path, image)
        # Only now: Pillow decodes a PNG to find its EXIF, and then no longer knows its depth.
        orientation = int(image.getexif().get(ORIENTATION, 1))
        small = colour.convert("RGB")
        if alpha:
            small = Image.composite(small, Image.new("RGB", small.size, BEHIND_TRANSPARENCY), alpha)
    turned = Image.fromarray(np.ascontiguousarray(upright(np.asarray(small), orientation)))
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=QUALITY)
    return Thumbnail(buffer.getvalue(), *((height, width) if orientation in (5, 6, 7, 8) else (width, height)))


def _channels(path: Path, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Small colour in sRGB and small alpha of a picture with 8 bits."""
    if image.has_transparency_data and image.mode not in ("LA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode not in _AVERAGED:
        image = image.convert("L" if image.mode == "1" else "RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return colour_channels(path, image)[0], alpha_channel(image)


def _deep_channels(path: Path, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The same of a picture with 16 bits, which Pillow alone would read as black or white."""
    colour, alpha, _, _ = read_samples(path, image)
    small = _reduced(colour if colour.shape[2] == 3 else colour[..., 0])
    return small, None if alpha is None else _reduced(alpha)


def _reduced(samples: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(quantised(samples, 8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image
