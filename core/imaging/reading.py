"""A picture file -> Photo: upright, sRGB, floating point, nothing of its depth lost."""

from __future__ import annotations

import io
import logging
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from ..errors import FileAccessError, OutOfMemoryError, PictureError
from ..runtime import available_ram
from . import icc
from .photo import BitDepth, FileFormat, Photo, PhotoDetails

log = logging.getLogger("kintsugi")

READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
WRITTEN_AS: dict[str, FileFormat] = {"JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp", "AVIF": "avif", "TIFF": "tiff"}
LARGEST_PIXELS = 400_000_000
BYTES_PER_PIXEL = 24  # decoded samples and float32 RGB beside each other, at the peak

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# Of a TIFF's tags only those that describe the photo are EXIF; the others describe the old file's layout.
DESCRIBING_TAGS = (0x010D, 0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)

Array = NDArray[Any]
# Colour [H, W, 1 or 3] and alpha [H, W] in float32 0..1, sRGB; depth; the profile a file made from it carries.
Samples = tuple[Array, Array | None, BitDepth, bytes | None]
_pillow_limit = threading.Lock()


def read_photo(path: Path | str) -> Photo:
    """The file's first picture, turned upright by its EXIF orientation, in sRGB.

    Reads 8- and 16-bit PNG, TIFF, JPEG, WebP, AVIF, BMP, GIF in grey, palette, RGB and CMYK, each with or without alpha.
    Raises FileAccessError (missing, unreadable), PictureError (no picture, damaged, too large, a kind that cannot be read
    without loss) and OutOfMemoryError.
    """
    path = Path(path)
    with explained(path), open_image(path) as image:
        require_room(path, image.size)
        return photo_from(path.name, image, read_samples(path, image))


def photo_from(name: str, image: Image.Image, samples: Samples) -> Photo:
    """The samples turned upright, with what their picture says about itself."""
    colour, alpha, depth, profile = samples
    orientation = int(image.getexif().get(ORIENTATION, 1))
    details = PhotoDetails(
        name=name,
        format=WRITTEN_AS.get(image.format or "", "png"),
        bit_depth=depth,
        icc=profile,
        exif=kept_exif(image),
        grey=colour.shape[2] == 1,
    )
    picture = upright(colour, orientation)
    return Photo(
        torch.from_numpy(np.ascontiguousarray(picture) if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2))[None],
        None if alpha is None else torch.from_numpy(upright(alpha, orientation).copy())[None],
        details,
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Pillow's and the system's errors, told as ours."""
    try:
        yield
    except UnidentifiedImageError:
        raise PictureError(
            "this is no picture, or of a kind that cannot be read.",
            where=str(path),
            way_out=f"Readable are {', '.join(READABLE)}.",
        ) from None
    except FileNotFoundError:
        raise FileAccessError("there is no such file.", where=str(path), way_out="Check the name and the folder.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, ImageCms.PyCMSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileAccessError(
                f"the file cannot be read ({error.strerror}).", where=str(path), way_out="Check the path and its permissions."
            ) from error
        raise PictureError(
            f"the picture is damaged or cut short ({error}).", where=str(path), way_out="Copy or export the file again."
        ) from error


def open_image(path: Path) -> Image.Image:
    """Image.open without Pillow's own pixel limit: require_room() has ours, with a message that says a way out."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            Image.init()
            return Image.open(path, formats=[name for name in READABLE if name in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def require_room(path: Path, size: tuple[int, int]) -> None:
    """Raise before anything is decoded when the picture is a decompression bomb or exceeds the memory."""
    pixels = size[0] * size[1]
    if pixels > LARGEST_PIXELS:
        raise PictureError(
            f"the picture says it has {size[0]} x {size[1]} pixels, more than the limit of {LARGEST_PIXELS // 1_000_000} million.",
            where=str(path),
            way_out="Cut it into parts first if it is real.",
        )
    free = available_ram()
    if pixels * BYTES_PER_PIXEL > free:
        raise OutOfMemoryError(
            f"{size[0]} x {size[1]} pixels need {pixels * BYTES_PER_PIXEL / 1e9:.1f} GB to read, {free / 1e9:.1f} GB are free.",
            where=str(path),
            way_out=f"About {free // BYTES_PER_PIXEL // 1_000_000} million pixels would fit.",
        )


def read_samples(path: Path, image: Image.Image) -> Samples:
    """The samples of a file's picture, in the file's own depth."""
    if is_deep(image):
        colour, alpha, profile = read_16_bit(path, image)
        return colour, alpha, 16, profile
    if image.mode in ("I", "F"):
        raise PictureError(
            "the picture has 32 bits per sample and no known white level.", where=str(path), way_out="Export it with 8 or 16 bits."
        )
    image.load()
    alpha_8 = alpha_channel(image)
    colour_8, profile = colour_channels(path, image)
    samples = np.asarray(colour_8)
    samples = samples[..., None] if samples.ndim == 2 else samples
    return unit(samples, 255), None if alpha_8 is None else unit(np.asarray(alpha_8), 255), 8, profile


def unit(samples: Array, white: int) -> Array:
    """Samples over their white as float32 0..1."""
    return np.divide(samples, np.float32(white), dtype=np.float32)


def is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits per sample; Pillow's mode does not tell, it cuts 16-bit colour to 8."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(258, (1,))) == {16} and image.mode != "F"
    return isinstance(image, PngImagePlugin.PngImageFile) and "16" in str(image.tile[0].args)


def alpha_channel(image: Image.Image) -> Image.Image | None:
    """Alpha as an 8-bit picture of one channel, or None for a picture without transparency."""
    if not image.has_transparency_data:
        return None
    straight = image.convert("LA") if image.mode == "La" else image
    return straight.convert("RGBA").getchannel("A")


def colour_channels(path: Path, image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """8-bit picture without alpha, mode L or RGB in sRGB, and its profile when a new file can carry it."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")
    plain = image.convert("L") if grey else image if image.mode == "CMYK" else image.convert("RGB")
    profile = usable_profile(path, image, "GRAY" if grey else "CMYK" if plain.mode == "CMYK" else "RGB")
    if profile is None or (plain.mode != "CMYK" and icc.is_srgb(profile)):
        return (plain.convert("RGB") if plain.mode == "CMYK" else plain), profile
    if grey and icc.colour_space(profile) == "RGB":
        plain = plain.convert("RGB")
    converted = icc.to_srgb(plain, profile)
    return (converted.convert("L") if grey else converted), None if plain.mode == "CMYK" else profile


def usable_profile(path: Path, image: Image.Image, wanted: str) -> bytes | None:
    """The embedded profile, or None when there is none or it does not fit the pixels (which is told)."""
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    try:
        space = icc.colour_space(profile)
        if space in ("RGB", "GRAY"):
            icc.is_srgb(profile)
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("%s: the colour profile cannot be read (%s); the pixels are taken as sRGB.", path, error)
        return None
    if space == wanted or (wanted, space) == ("GRAY", "RGB"):
        return bytes(profile)
    log.warning("%s: a %s profile on a %s picture; the pixels are taken as sRGB.", path, space, wanted)
    return None


def read_16_bit(path: Path, image: Image.Image) -> tuple[Array, Array | None, bytes | None]:
    """Colour [H, W, 1 or 3], alpha [H, W] and profile of a 16-bit PNG or TIFF, float32 0..1 in sRGB."""
    samples = deep_samples(path, image)
    channels = 1 if samples.shape[2] <= 2 else 3
    colour = unit(samples[..., :channels], 65535)
    alpha = unit(samples[..., channels], 65535) if samples.shape[2] > channels else keyed_alpha(image, samples)
    profile = usable_profile(path, image, "GRAY" if channels == 1 else "RGB")
    if profile is None or icc.is_srgb(profile):
        return colour, alpha, profile
    matrix = icc.matrix_profile(profile)
    if matrix is None:
        raise PictureError(
            "a 16-bit picture with a colour profile made of tables cannot be converted to sRGB without loss.",
            where=str(path),
            way_out="Convert it to sRGB, Display P3 or Adobe RGB in an editor, or export it with 8 bits.",
        )
    if channels == 1 and matrix.matrix is not None:
        neutral = matrix.to_srgb(np.repeat(colour, 3, axis=2))
        return neutral.mean(axis=2, keepdims=True, dtype=np.float32), alpha, profile
    return matrix.to_srgb(colour), alpha, profile


def keyed_alpha(image: Image.Image, samples: Array) -> Array | None:
    """Alpha [H, W] of a PNG that names one colour transparent (tRNS, in 16-bit values)."""
    key = image.info.get("transparency")
    if key is None:
        return None
    return (samples != np.array(key, dtype=samples.dtype).reshape(1, 1, -1)).any(axis=2).astype(np.float32)


def deep_samples(path: Path, image: Image.Image) -> Array:
    """uint16 [H, W, C] of a 16-bit file, each kind through the library that keeps its low byte."""
    if isinstance(image, PngImagePlugin.PngImageFile) and str(image.tile[0].args).startswith("LA"):
        return grey_alpha_png(path)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if image.mode in ("CMYK", "RGBa", "LAB"):
            raise PictureError(
                f"a 16-bit {image.mode} TIFF cannot be read.", where=str(path), way_out="Export it as 16-bit RGB, alpha not multiplied in."
            )
        if image.mode == "RGBA":
            return tiff_with_alpha(image)
    if image.mode.startswith("I"):
        samples = np.asarray(image)[..., None].astype(np.uint16)
        white_is_zero = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0
        return np.uint16(65535) - samples if white_is_zero else samples
    return kornia_samples(path)


def kornia_samples(path: Path) -> Array:
    """uint16 [H, W, C] of a 16-bit PNG or TIFF; PictureError when the library cannot read it or finds other samples."""
    import kornia_rs

    try:
        samples = np.asarray(kornia_rs.io.read_image(str(path)))
    except Exception as error:  # kornia-rs raises bare Exception for every fault of a file
        raise PictureError(
            f"the 16-bit picture cannot be read ({error}).", where=str(path), way_out="Export it again as 16-bit PNG."
        ) from error
    if samples.dtype != np.uint16:
        raise PictureError(f"16-bit samples expected, found {samples.dtype}.", where=str(path), way_out="Export it as 16-bit PNG.")
    return samples


def grey_alpha_png(path: Path) -> Array:
    """16-bit grey + alpha PNG. No library reads it whole; but with the header saying 8-bit RGBA the same bytes decode exactly."""
    data = bytearray(path.read_bytes())
    data[24:26] = bytes([8, 6])
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    four_bytes = np.asarray(Image.open(io.BytesIO(data), formats=["PNG"])).astype(np.uint16)
    return four_bytes[..., 0::2] * np.uint16(256) + four_bytes[..., 1::2]


def tiff_with_alpha(image: TiffImagePlugin.TiffImageFile) -> Array:
    """16-bit RGBA TIFF through Pillow, once for each byte: kornia-rs refuses four channels, Pillow alone keeps the high byte."""
    path, stored = image.filename, image.tag_v2.prefix
    high, low = ("L", "B") if stored == b"II" or "16N" in str(image.tile) else ("B", "L")
    samples = np.zeros((1, 1, 1), dtype=np.uint16)
    for order, weight in ((high, 256), (low, 1)):
        with Image.open(path, formats=["TIFF"]) as part:
            part.tile = [with_order(tile, order) for tile in part.tile]
            samples = samples + np.asarray(part).astype(np.uint16) * np.uint16(weight)
    return samples


def with_order(tile: Any, order: str) -> Any:
    """The tile, decoded as if its 16-bit samples were stored in that byte order (B or L)."""
    raw_mode, *rest = tile.args
    return tile._replace(args=(f"{raw_mode.split(';')[0]};16{order}", *rest))


def upright(samples: Array, orientation: int) -> Array:
    """[H, W, ...] turned by EXIF orientation 1..8."""
    turned = samples.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else samples
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return turned[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def kept_exif(image: Image.Image) -> bytes | None:
    """The EXIF block with orientation 1, without the tags that describe the old file's layout; None when nothing is left."""
    found = image.getexif()
    kept = Image.Exif()
    tags = DESCRIBING_TAGS if image.format == "TIFF" else tuple(tag for tag in found if tag not in (EXIF_IFD, GPS_IFD))
    for tag in tags:
        if tag in found:
            kept[tag] = found[tag]
    for block in (EXIF_IFD, GPS_IFD):
        if content := found.get_ifd(block):
            kept[block] = content
    if not len(kept):
        return None
    kept[ORIENTATION] = 1
    return kept.tobytes()
