"""Pillow's pictures in memory: what reading and writing a file does, without the file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from .photo import Photo, PhotoDetails
from .reading import explained, photo_from, read_16_bit, read_samples
from .writing import pillow_image, samples_for


def photo_of(image: Image.Image) -> Photo:
    """The picture as read_photo() gives a file's: upright, in sRGB, with its alpha.

    Of 16-bit pictures Pillow holds grey ones whole and 8 bits of the others. Raises PictureError for damaged ones, and for samples of
    32 bits.
    """
    place = Path(getattr(image, "filename", "") or "PIL.Image")
    with explained(place):
        image.load()
        # A copy has no file of its own, from which its low bytes would be read.
        alone = image.copy()
        if alone.mode.startswith("I;16"):
            colour, alpha, profile = read_16_bit(place, alone)
            return photo_from(place.name, image, (colour, alpha, 16, profile))
        return photo_from(place.name, image, read_samples(place, alone))


def pillow_of(picture: Tensor, alpha: Tensor | None, details: PhotoDetails) -> Image.Image:
    """What an 8-bit PNG of [H, W, 3] in 0..1 and alpha [H, W] would hold: mode L, LA, RGB or RGBA, with profile and EXIF in its `info`."""
    samples, profile = samples_for(Path(details.name or "PIL.Image"), picture, alpha, details, "png", 8)
    image = pillow_image(samples)
    beside = {"icc_profile": profile, "exif": details.exif}
    image.info |= {name: value for name, value in beside.items() if value is not None}
    return image
