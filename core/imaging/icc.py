"""Colour profiles to and from sRGB: LittleCMS for 8-bit pictures, floating point for 16-bit ones.

LittleCMS as Pillow offers it has no 16-bit colour modes. The profiles that 16-bit photos carry (Adobe RGB, Display P3,
ProPhoto, a grey gamma) are matrix or curve profiles, whose ICC.1:2022 section F.3 model is three curves and a matrix:
that model is evaluated here. A 16-bit file with a table profile is refused by the caller.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Samples = NDArray[np.float32]
Curve = NDArray[np.float64]

# sRGB primaries adapted to the D50 white of the profile connection space (Bradford), linear RGB -> XYZ.
SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]], dtype=np.float64
)
CURVE_POINTS = 4096
ROWS_AT_ONCE = 256


def colour_space(icc: bytes) -> str:
    """`RGB`, `GRAY`, `CMYK`, ... of a profile; ImageCms.PyCMSError or OSError when it cannot be read."""
    return str(ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()


@lru_cache(maxsize=8)
def is_srgb(icc: bytes) -> bool:
    """True when pixels through this RGB or grey profile are sRGB's within one grey level."""
    if colour_space(icc) == "GRAY":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        levels = np.linspace(0, 255, 9).round().astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    expected = np.asarray(probe.convert("RGB"), dtype=np.int16)
    return int(np.abs(np.asarray(to_srgb(probe, icc), dtype=np.int16) - expected).max()) <= 1


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """8-bit picture in the profile's own mode (L, RGB, CMYK) -> RGB in sRGB."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transformed = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert transformed is not None
    return transformed


def from_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """8-bit RGB picture in sRGB -> RGB or L in the profile."""
    mode = "L" if colour_space(icc) == "GRAY" else "RGB"
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transformed = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), profile, outputMode=mode)
    assert transformed is not None
    return transformed


@dataclass(frozen=True)
class MatrixProfile:
    """linear = curve(value) per channel, XYZ = matrix @ linear; a grey profile has one curve and no matrix.

    curves: CURVE_POINTS samples each over 0..1, increasing. Colours outside sRGB are clipped to 0..1.
    """

    curves: tuple[Curve, ...]
    matrix: NDArray[np.float64] | None

    def to_srgb(self, samples: Samples) -> Samples:
        """[H, W, C] (C = 1 or 3) in the profile -> [H, W, C] in sRGB, both 0..1."""
        return in_rows(self._rows_to_srgb, samples)

    def from_srgb(self, samples: Samples) -> Samples:
        """[H, W, C] (C = 1 or 3) in sRGB -> [H, W, C] in the profile, both 0..1."""
        return in_rows(self._rows_from_srgb, samples)

    def _rows_to_srgb(self, rows: Samples) -> Samples:
        grid = np.linspace(0.0, 1.0, CURVE_POINTS)
        linear = np.stack([np.interp(rows[..., c], grid, curve) for c, curve in enumerate(self.curves)], -1)
        if self.matrix is not None:
            linear = linear @ (np.linalg.inv(SRGB_TO_XYZ) @ self.matrix).T
        return srgb_encode(np.clip(linear, 0.0, 1.0)).astype(np.float32)

    def _rows_from_srgb(self, rows: Samples) -> Samples:
        grid = np.linspace(0.0, 1.0, CURVE_POINTS)
        linear = srgb_decode(rows.astype(np.float64))
        if self.matrix is not None:
            linear = linear @ (np.linalg.inv(self.matrix) @ SRGB_TO_XYZ).T
        linear = np.clip(linear, 0.0, 1.0)
        return np.stack([np.interp(linear[..., c], curve, grid) for c, curve in enumerate(self.curves)], -1).astype(np.float32)


def in_rows(convert: Callable[[Samples], Samples], samples: Samples) -> Samples:
    """convert() over strips of rows: the double-precision steps in between stay small."""
    result = np.empty_like(samples)
    for top in range(0, samples.shape[0], ROWS_AT_ONCE):
        result[top : top + ROWS_AT_ONCE] = convert(samples[top : top + ROWS_AT_ONCE])
    return result


def srgb_encode(linear: Curve) -> Curve:
    """IEC 61966-2-1, linear 0..1 -> sRGB 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def srgb_decode(values: Curve) -> Curve:
    """IEC 61966-2-1, sRGB 0..1 -> linear 0..1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def matrix_profile(icc: bytes) -> MatrixProfile | None:
    """The profile's curves and matrix; None when it is of another kind (tables) or cannot be read."""
    try:
        tags = profile_tags(icc)
        if any(name in tags for name in (b"A2B0", b"A2B1")):
            return None
        if b"kTRC" in tags:
            return MatrixProfile((read_curve(tags[b"kTRC"]),), None)
        curves = tuple(read_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
        matrix = np.stack([read_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    except (KeyError, struct.error, ValueError):
        return None
    return MatrixProfile(curves, matrix)


def profile_tags(icc: bytes) -> dict[bytes, bytes]:
    """Tag name -> tag data of an ICC profile (header of 128 bytes, then the tag table)."""
    (count,) = struct.unpack_from(">I", icc, 128)
    entries = (struct.unpack_from(">4sII", icc, 132 + 12 * index) for index in range(min(count, 200)))
    return {name: icc[offset : offset + size] for name, offset, size in entries}


def read_xyz(tag: bytes) -> NDArray[np.float64]:
    """The three s15Fixed16 numbers of an XYZ tag."""
    return np.array(struct.unpack_from(">3i", tag, 8), dtype=np.float64) / 65536


def read_curve(tag: bytes) -> Curve:
    """`curv` (gamma or table) or `para` (ICC.1:2022, 10.18) as CURVE_POINTS increasing samples."""
    grid = np.linspace(0.0, 1.0, CURVE_POINTS)
    if tag[:4] == b"para":
        curve = parametric_curve(tag, grid)
    elif tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        table = np.array(struct.unpack_from(f">{count}H", tag, 12), dtype=np.float64)
        if count == 0:
            curve = grid
        elif count == 1:
            curve = grid ** (table[0] / 256)
        else:
            curve = np.interp(grid, np.linspace(0.0, 1.0, count), table / 65535)
    else:
        raise ValueError(f"curve of kind {tag[:4]!r}")
    return np.maximum.accumulate(np.clip(curve, 0.0, 1.0))


def parametric_curve(tag: bytes, x: Curve) -> Curve:
    """(a x + b)^g + e from d on, c x + f below it; the kinds 0..3 leave some of the seven numbers out."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}.get(kind)
    if count is None:
        raise ValueError(f"parametric curve of kind {kind}")
    stored = [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)]
    g, a, b, c, d, e, f = stored + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0][count - 1 :]
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a, c, c
    return np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f)
