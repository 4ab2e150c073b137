"""16-bit PNG. Pillow writes none in colour; kornia-rs encodes the pixels but knows no profile, EXIF or texts."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

HEADER_BYTES = 33  # signature and IHDR chunk
EXIF_PREFIX = b"Exif\0\0"


def write_deep_png(path: Path, samples: NDArray[Any], profile: bytes | None, exif: bytes | None, texts: PngInfo) -> None:
    """samples: uint16 [H, W, 1..4]; grey with alpha becomes RGBA. The other chunks are put behind the header."""
    import kornia_rs

    if samples.shape[2] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    mode = {1: "mono", 3: "rgb", 4: "rgba"}[samples.shape[2]]
    kornia_rs.io.write_image_png_u16(str(path), np.ascontiguousarray(samples), mode)
    chunks = [(chunk[0], chunk[1]) for chunk in texts.chunks]
    if profile is not None:
        chunks.insert(0, (b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if exif is not None:
        chunks.append((b"eXIf", exif.removeprefix(EXIF_PREFIX)))
    if chunks:
        data = path.read_bytes()
        path.write_bytes(data[:HEADER_BYTES] + b"".join(png_chunk(name, body) for name, body in chunks) + data[HEADER_BYTES:])


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Length, name, body and checksum, as the PNG specification lays out a chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
