"""What a picture file holds beside its pixels, so that a restored picture can be written the way it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from ..errors import BadValueError

FileFormat = Literal["png", "jpeg", "webp", "avif", "tiff"]
BitDepth = Literal[8, 16]

FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
SUFFIXES: dict[str, FileFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".avif": "avif",
    ".tif": "tiff",
    ".tiff": "tiff",
}


@dataclass(frozen=True)
class PhotoDetails:
    """How the file was made, and how a file made from it shall be.

    name: file name without folder. icc: colour profile that the file carries (the pixels in memory are sRGB always).
    exif: EXIF block in Pillow's byte form, orientation 1. grey: the file has no colour.
    """

    name: str = ""
    format: FileFormat = "png"
    bit_depth: BitDepth = 8
    icc: bytes | None = None
    exif: bytes | None = None
    grey: bool = False


@dataclass(frozen=True)
class Photo:
    """picture: [1, H, W, 3] float32 in 0..1, sRGB. alpha: [1, H, W] in 0..1, straight (colours are not multiplied by it)."""

    picture: Tensor
    alpha: Tensor | None = None
    details: PhotoDetails = field(default_factory=PhotoDetails)


def format_of(path: Path) -> FileFormat:
    """File format that a name's ending asks for; BadValueError for another ending."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise BadValueError(
            f"the ending {path.suffix!r} names no picture format that can be written.",
            where=str(path),
            way_out=f"Use one of {', '.join(SUFFIXES)}.",
        ) from None


def suffix_of(file_format: str) -> str:
    """Usual file ending of a format, with its dot: `.jpg` for jpeg."""
    return next(suffix for suffix, name in SUFFIXES.items() if name == file_format)


def as_format(name: str) -> FileFormat:
    """The name as a FileFormat; BadValueError for an unknown one."""
    if name not in FORMATS:
        raise BadValueError(f"{name!r} is no picture format.", way_out=f"Use one of {', '.join(FORMATS)}.")
    return name
