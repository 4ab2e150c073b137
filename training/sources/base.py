"""What training pictures come from, whatever they lie in."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import PictureError
from ...core.imaging.reading import ORIENTATION, colour_channels, explained, read_photo, require_room, upright

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """high_quality uint8 [H, W, 3]; low_quality uint8 [h, w, 3] where a degraded version of it is stored; caption: "" without one."""

    high_quality: Picture
    low_quality: Picture | None = None
    caption: str = ""


class Source(Protocol):
    """Pictures by number, in an order that does not change."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a person finds the picture by."""

    def caption(self, index: int) -> str:
        """ "" without one. Raises PictureError and FileAccessError for one that cannot be read."""

    def example(self, index: int) -> Example:
        """Raises PictureError and FileAccessError for one that cannot be read."""


def read_picture(path: Path) -> Picture:
    """The file's picture upright, in sRGB, in 8 bits, without alpha. Raises PictureError and FileAccessError."""
    levels: Picture = (read_photo(path).picture[0].numpy() * 255).round().astype(np.uint8)
    return levels


def decode_picture(content: bytes, where: str) -> Picture:
    """read_picture() of a file's bytes; `where` they are from is for messages."""
    place = Path(where)
    with explained(place), Image.open(io.BytesIO(content)) as image:
        require_room(place, image.size)
        if image.mode.startswith(("I", "F")):
            raise PictureError("has more than 8 bits per sample.", where=where, way_out="Store pictures of archives in 8 bits.")
        image.load()
        colour, _ = colour_channels(place, image)
        return np.ascontiguousarray(upright(np.asarray(colour.convert("RGB")), int(image.getexif().get(ORIENTATION, 1))))


def decode_text(content: bytes, where: str, read: Callable[[str], str] = str.strip) -> str:
    """A caption from a file's bytes by `read`. Raises PictureError for bytes that are none."""
    try:
        return read(content.decode("utf-8"))
    except ValueError as error:
        raise PictureError(f"its caption cannot be read ({error}).", where=where, way_out="Write captions in UTF-8.") from error
