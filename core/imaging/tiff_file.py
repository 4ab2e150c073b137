"""TIFF of 8 or 16 bits with alpha, profile and EXIF: one deflated strip behind a directory that Pillow lays out.

No library at hand writes all of it: Pillow has no 16-bit colour and no EXIF block in a compressed file, kornia-rs neither alpha nor tags.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

LONG, UNDEFINED = 4, 7
HEADER_BYTES = 8
LARGEST_FILE = 2**32 - 2**20

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0115
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, EXTRA_SAMPLES = 0x0111, 0x0116, 0x0117, 0x011C, 0x0152
ICC_PROFILE, EXIF_IFD, GPS_IFD = 0x8773, 0x8769, 0x8825
DEFLATE, STRAIGHT_ALPHA = 8, 2


def write_tiff(path: Path, samples: NDArray[Any], profile: bytes | None, exif: bytes | None) -> None:
    """samples: uint8 or uint16 [H, W, 1..4]. OSError when the compressed pixels exceed what a TIFF can hold."""
    strip = zlib.compress(samples.astype(samples.dtype.newbyteorder("<")).tobytes(), 6)
    if len(strip) > LARGEST_FILE:
        raise OSError("a TIFF holds at most 4 GB; use png")
    directory = tiff_directory(samples, len(strip), profile, exif)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, HEADER_BYTES) + directory.tobytes(HEADER_BYTES))
        file.write(strip)


def tiff_directory(samples: NDArray[Any], strip_bytes: int, profile: bytes | None, exif: bytes | None) -> ImageFileDirectory_v2:
    """The entries of a TIFF with these samples [H, W, C], but for where its strips lie."""
    height, width, channels = samples.shape
    directory = ImageFileDirectory_v2(prefix=b"II")
    if exif is not None:
        copy_exif(exif, directory)
    directory[WIDTH], directory[HEIGHT] = width, height
    directory[BITS] = (samples.dtype.itemsize * 8,) * channels
    directory[COMPRESSION] = DEFLATE
    directory[PHOTOMETRIC] = 1 if channels <= 2 else 2
    directory[SAMPLES], directory[PLANAR] = channels, 1
    if channels in (2, 4):
        directory[EXTRA_SAMPLES] = STRAIGHT_ALPHA
    directory.tagtype[STRIP_OFFSETS] = directory.tagtype[STRIP_BYTES] = LONG
    directory[STRIP_OFFSETS] = 0  # tobytes() moves it behind the directory
    directory[ROWS_PER_STRIP], directory[STRIP_BYTES] = height, strip_bytes
    if profile is not None:
        directory.tagtype[ICC_PROFILE] = UNDEFINED
        directory[ICC_PROFILE] = profile
    return directory


def copy_exif(exif: bytes, directory: ImageFileDirectory_v2) -> None:
    """EXIF tags and blocks, where a TIFF keeps them."""
    block = Image.Exif()
    block.load(exif)
    for tag in block:
        content = block.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else block[tag]
        if isinstance(content, dict):
            directory.tagtype[tag] = LONG
        directory[tag] = content
