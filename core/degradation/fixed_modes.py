"""Three fixed degradations, without any choice: what restorers are measured on. Training never sees their pictures."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Mode = Literal["bicx4", "same", "realx4"]
MODES: tuple[Mode, ...] = get_args(Mode)

SCALE = 4
CROP = 512
FIRST_SEED = 100
FULL_CHROMA, HALVED_CHROMA = "4:4:4", "4:2:0"


def validation_crop(picture: Picture) -> Picture:
    """The centre 512 x 512 of [H, W, 3]; the whole picture where a side is smaller, sides floored to multiples of 8."""
    whole = min(picture.shape[:2]) < CROP
    height, width = (side // 8 * 8 if whole else CROP for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def degrade_fixed(picture: Picture, mode: Mode, index: int) -> Picture:
    """[H, W, 3] -> [H, W, 3], what mode makes of photo number `index` (its noise has seed 100 + index).

    bicx4: bicubic down by 4. same: blur 1.2, noise 10 of 255, JPEG 45 at 4:4:4. realx4: blur 1.5, bicubic down by 4, noise
    5 of 255, JPEG 75 at 4:2:0. The small ones are brought back with Pillow's bicubic. Sides must be multiples of 4.
    """
    random = np.random.default_rng(FIRST_SEED + index)
    size = (picture.shape[1], picture.shape[0])
    if mode == "bicx4":
        degraded = smaller(picture)
    elif mode == "same":
        degraded = jpeg(with_noise(blur(picture, 1.2), 10.0, random), 45, FULL_CHROMA)
    else:
        degraded = jpeg(with_noise(smaller(to_levels(blur(picture, 1.5))), 5.0, random), 75, HALVED_CHROMA)
    return np.asarray(Image.fromarray(degraded).resize(size, Image.Resampling.BICUBIC))


def blur(picture: NDArray[np.generic], sigma: float) -> NDArray[np.float64]:
    """Gaussian over the first two axes, cut off at 4 sigma, mirrored at the border; in grey levels."""
    radius = round(4 * sigma)
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    result = picture.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(result, [(radius, radius) if dim == axis else (0, 0) for dim in range(result.ndim)], mode="symmetric")
        length = result.shape[axis]
        shifted = (np.take(padded, range(start, start + length), axis=axis) for start in range(2 * radius + 1))
        result = sum((weight * part for weight, part in zip(kernel, shifted, strict=True)), np.zeros_like(result))
    return result


def smaller(picture: Picture) -> Picture:
    """The uint8 picture [H, W, 3] shrunk by 4 with Pillow's bicubic."""
    size = (picture.shape[1] // SCALE, picture.shape[0] // SCALE)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def with_noise(picture: NDArray[np.generic], deviation: float, random: np.random.Generator) -> Picture:
    """Gaussian noise of that deviation (grey levels) on values 0..255, rounded to uint8."""
    return to_levels(picture.astype(np.float64) + random.normal(0.0, deviation, picture.shape))


def to_levels(values: NDArray[np.float64]) -> Picture:
    """Values around 0..255 rounded and clipped to uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def jpeg(picture: Picture, quality: int, subsampling: str) -> Picture:
    """The uint8 picture through Pillow's JPEG; subsampling as Pillow spells it, such as 4:4:4."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(data))
