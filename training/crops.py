"""From a picture of any size to a crop of one size, with its pair cut alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .recipe import DataSettings, ResizeSettings
from .sources.base import Example, Picture

Cut = Callable[[Picture], Picture]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "box": Image.Resampling.BOX}


@dataclass(frozen=True)
class Crop:
    """high_quality, low_quality: uint8 [S, S, 3], the second where one is stored. sizes: SDXL's ids, the picture's own height and
    width, top and left of the crop in the picture it was cut from, S, S."""

    high_quality: Picture
    low_quality: Picture | None
    sizes: tuple[int, ...]


def cut_crop(example: Example, data: DataSettings, random: np.random.Generator) -> Crop:
    """A crop at random, of the picture resized as the recipe says; one that is smaller than the crop is enlarged first. A stored
    pair's low side is enlarged to the high one's size first."""
    height, width = original = example.high_quality.shape[:2]
    size = _resized(height, width, data.resize, random)
    enlarged = _at_least(*size, data.crop)
    top, left = (int(random.integers(length - data.crop + 1)) for length in enlarged)
    turns = int(random.integers(4)) if data.turn else 0
    flipped = bool(random.integers(2)) if data.flip else False
    sampling = FILTERS[data.resize.filter if data.resize else "bicubic"]

    def cut(picture: Picture) -> Picture:
        pixels = _scaled(_scaled(_scaled(picture, original, FILTERS["bicubic"]), size, sampling), enlarged, FILTERS["bicubic"])
        crop = np.rot90(pixels[top : top + data.crop, left : left + data.crop], turns)
        return np.array(crop[:, ::-1] if flipped else crop)

    low = None if example.low_quality is None else cut(example.low_quality)
    return Crop(cut(example.high_quality), low, (height, width, top, left, data.crop, data.crop))


def _resized(height: int, width: int, resize: ResizeSettings | None, random: np.random.Generator) -> tuple[int, int]:
    """Height and width after the recipe's own resize."""
    if resize is None:
        return height, width
    side = resize.side if isinstance(resize.side, int) else int(random.integers(resize.side[0], resize.side[1] + 1))
    if resize.squeeze:
        return side, side
    factor = side / min(height, width)
    return max(side, round(height * factor)), max(side, round(width * factor))


def _at_least(height: int, width: int, side: int) -> tuple[int, int]:
    """The size, or one of its shape with no side below `side`."""
    if min(height, width) >= side:
        return height, width
    factor = side / min(height, width)
    return max(side, round(height * factor)), max(side, round(width * factor))


def _scaled(picture: Picture, size: tuple[int, int], sampling: Image.Resampling) -> Picture:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), sampling))
