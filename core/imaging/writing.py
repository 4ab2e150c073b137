"""Picture tensors -> a file: rounded, not truncated; with profile, EXIF and workflow; whole under its name or not at all."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import BadValueError, FileAccessError, PictureError
from ..file_names import written_whole
from ..runtime import require_finite
from . import icc
from .deep_png import write_deep_png
from .photo import BitDepth, FileFormat, PhotoDetails, format_of
from .tiff_file import write_tiff

log = logging.getLogger("kintsugi")

QUALITY = 95
LARGEST_SIDE: dict[FileFormat, int] = {"png": 2**31 - 1, "tiff": 2**31 - 1, "jpeg": 65_535, "webp": 16_383, "avif": 65_535}
DEEP: tuple[FileFormat, ...] = ("png", "tiff")
WITHOUT_GREY: tuple[FileFormat, ...] = ("webp", "avif")

# ComfyUI's places in a WebP's EXIF: the prompt in Model, then downward from Make.
PROMPT_TAG, NEXT_TAG = 0x0110, 0x010F
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
LARGEST_JPEG_EXIF = 65_533 - len(b"Exif\0\0")
STRIP_ROWS = 256
GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """What a format's writer needs: samples [H, W, 1..4] in 0..1 in the profile's values, and what travels beside them."""

    samples: Floats
    depth: BitDepth
    quality: int
    profile: bytes | None
    exif: bytes | None
    metadata: dict[str, str]


def write_photo(
    path: Path | str,
    picture: Tensor,
    alpha: Tensor | None = None,
    details: PhotoDetails | None = None,
    format: FileFormat | None = None,
    bit_depth: BitDepth | None = None,
    quality: int = QUALITY,
    metadata: dict[str, str] | None = None,
    overwrite: bool = True,
) -> None:
    """Write one picture [1, H, W, 3] or [H, W, 3] (0..1, sRGB, clipped) with alpha [1, H, W] or [H, W].

    details: grey, profile and EXIF of the source; the pixels are converted from sRGB to that profile. format: the name's
    ending decides when None. bit_depth: None takes the source's where the format has it. quality: 1..100 for JPEG,
    WebP and AVIF; a WebP of 100 is lossless. metadata: `prompt`, `workflow` and other JSON texts: PNG text chunks; EXIF tags
    as ComfyUI sets them in WebP; the EXIF user comment elsewhere, so that camera names stay.
    Raises BadValueError, PictureError (what the format cannot hold) and FileAccessError (path, existing file, disk).
    """
    path, details = Path(path), details or PhotoDetails()
    file_format = format or format_of(path)
    depth: BitDepth = bit_depth or (details.bit_depth if file_format in DEEP else 8)
    require_writable(path, overwrite)
    samples, profile = samples_for(path, picture, alpha, details, file_format, depth)
    job = Job(samples, depth, quality, profile, details.exif, metadata or {})
    try:
        with written_whole(path) as temporary:
            write_file(temporary, file_format, job)
    except OSError as error:
        raise FileAccessError(
            f"the picture cannot be written ({error}).", where=str(path), way_out="Check the folder, its permissions and the free space."
        ) from error


def samples_for(
    path: Path, picture: Tensor, alpha: Tensor | None, details: PhotoDetails, file_format: FileFormat, depth: BitDepth
) -> tuple[Floats, bytes | None]:
    """Samples [H, W, 1..4] in 0..1 as a file of that format and depth holds them, and the profile whose values they are."""
    colour = one_picture(picture, 3, "picture")
    require_holdable(path, file_format, depth, (colour.shape[1], colour.shape[0]))
    profile = fitting_profile(details, file_format, depth, alpha is not None)
    samples = in_profile(path, colour, profile, depth, details.grey)
    if alpha is not None:
        samples = with_alpha(path, samples, one_picture(alpha[..., None], 1, "alpha"), file_format)
    return samples, profile


def require_writable(path: Path, overwrite: bool) -> None:
    """Raise FileAccessError for a folder, an existing file that may not be replaced, and a place that cannot be written."""
    if path.is_dir():
        raise FileAccessError("this is a folder.", where=str(path), way_out="Name a file in it.")
    if path.exists() and not overwrite:
        raise FileAccessError(
            "the file exists already.", where=str(path), way_out="Choose another name, or allow overwriting (--overwrite)."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(
            f"the folder cannot be made ({error.strerror}).", where=str(path.parent), way_out="Choose a folder that can be written."
        ) from error


def one_picture(tensor: Tensor, channels: int, name: str) -> Floats:
    """[H, W, channels] in 0..1 of a tensor [1, H, W, channels] or without its first dimension."""
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[2] != channels or 0 in tensor.shape:
        raise BadValueError(f"{name} has shape {list(tensor.shape)}, expected one picture [H, W, {channels}].")
    require_finite(tensor, name)
    return tensor.detach().to("cpu").float().clamp(0, 1).numpy()


def require_holdable(path: Path, file_format: FileFormat, depth: BitDepth, size: tuple[int, int]) -> None:
    """Raise BadValueError or PictureError when the format does not hold that depth or size (width, height)."""
    if depth == 16 and file_format not in DEEP:
        raise BadValueError(f"{file_format} has no 16-bit files here.", where=str(path), way_out="Use png or tiff, or 8 bits.")
    if max(size) > LARGEST_SIDE[file_format]:
        raise PictureError(
            f"{size[0]} x {size[1]} pixels: {file_format} holds at most {LARGEST_SIDE[file_format]} along a side.",
            where=str(path),
            way_out="Use png or tiff.",
        )


def fitting_profile(details: PhotoDetails, file_format: FileFormat, depth: BitDepth, has_alpha: bool) -> bytes | None:
    """The source's profile; None when it is a grey one and the new file has colour channels (its pixels stay sRGB then)."""
    in_one_channel = details.grey and file_format not in WITHOUT_GREY and not (file_format == "png" and depth == 16 and has_alpha)
    if details.icc is not None and not in_one_channel and icc.colour_space(details.icc) == "GRAY":
        return None
    return details.icc


def in_profile(path: Path, colour: Floats, profile: bytes | None, depth: BitDepth, as_grey: bool) -> Floats:
    """Samples [H, W, 1 or 3] in the values of the profile that the file carries."""
    if profile is not None and not icc.is_srgb(profile):
        colour = convert(path, colour, profile, depth)
    return grey(colour) if as_grey else colour


def grey(colour: Floats) -> Floats:
    """[H, W, 1]: luma; pixels without colour keep their value to the bit."""
    if colour.shape[2] == 1:
        return colour
    neutral = (colour[..., :1] == colour).all(axis=2)
    luma: Floats = np.where(neutral, colour[..., 0], colour @ GREY_WEIGHTS).astype(np.float32)
    return luma[..., None]


def convert(path: Path, colour: Floats, profile: bytes, depth: BitDepth) -> Floats:
    """sRGB colours [H, W, 3] in 0..1 in the source's own profile. Raises PictureError where that cannot be done exactly."""
    matrix = icc.matrix_profile(profile)
    if matrix is not None:
        return matrix.from_srgb(grey(colour) if matrix.matrix is None else colour)
    if depth == 16:
        raise PictureError(
            "the source's colour profile is made of tables; only 8-bit pictures can be converted to it.",
            where=str(path),
            way_out="Write 8 bits, or leave the profile out (the file is sRGB then).",
        )
    levels = np.asarray(icc.from_srgb(Image.fromarray(quantised(colour, 8)), profile))
    converted: Floats = levels.astype(np.float32) / np.float32(255)
    return converted if converted.ndim == 3 else converted[..., None]


def with_alpha(path: Path, samples: Floats, alpha: Floats, file_format: FileFormat) -> Floats:
    """Samples [H, W, C] with alpha [H, W, 1] as their last channel. Raises BadValueError for another size or a format without."""
    if alpha.shape[:2] != samples.shape[:2]:
        raise BadValueError(
            f"alpha is {alpha.shape[1]} x {alpha.shape[0]}, the picture {samples.shape[1]} x {samples.shape[0]} pixels.",
            where=str(path),
            way_out="Scale the alpha to the picture first.",
        )
    if file_format == "jpeg":
        raise PictureError("JPEG holds no transparency.", where=str(path), way_out="Use png, webp, avif or tiff, or leave the alpha out.")
    return np.concatenate([samples, alpha], axis=2)


def quantised(samples: Floats, depth: BitDepth) -> NDArray[Any]:
    """0..1 -> the nearest of 256 or 65536 levels; in strips, so that a large picture has no float copy beside it."""
    white, kind = (255, np.uint8) if depth == 8 else (65535, np.uint16)
    levels = np.empty(samples.shape, dtype=kind)
    for top in range(0, samples.shape[0], STRIP_ROWS):
        levels[top : top + STRIP_ROWS] = np.rint(samples[top : top + STRIP_ROWS] * np.float32(white))
    return levels


def write_file(path: Path, file_format: FileFormat, job: Job) -> None:
    """Write the job under this name, in that format."""
    if file_format == "png":
        write_png(path, job)
    elif file_format == "tiff":
        write_tiff(path, quantised(job.samples, job.depth), job.profile, exif_with_comment(job.exif, job.metadata))
    else:
        write_lossy(path, file_format, job)


def write_png(path: Path, job: Job) -> None:
    """PNG with profile, EXIF and texts, 8 or 16 bits."""
    texts = PngInfo()
    for name, value in job.metadata.items():
        texts.add_text(name, value)
    if job.depth == 16:
        write_deep_png(path, quantised(job.samples, 16), job.profile, job.exif, texts)
    else:
        save(pillow_image(job.samples), path, "PNG", job.profile, job.exif, pnginfo=texts, compress_level=4)


def write_lossy(path: Path, file_format: FileFormat, job: Job) -> None:
    """JPEG, WebP or AVIF with profile and EXIF."""
    image, quality = pillow_image(job.samples), job.quality
    if file_format == "webp":
        exif = exif_with_workflow(job.exif, job.metadata)
        save(in_colour(image), path, "WEBP", job.profile, exif, quality=quality, lossless=quality == 100, exact=True)
    elif file_format == "avif":
        exif = exif_with_comment(job.exif, job.metadata)
        save(in_colour(image), path, "AVIF", job.profile, exif, quality=quality, subsampling="4:4:4")
    else:
        exif = exif_with_comment(job.exif, job.metadata)
        if exif is not None and len(exif) > LARGEST_JPEG_EXIF:
            log.warning("%s: the workflow is too long for a JPEG and is left out.", path.name)
            exif = job.exif
        save(image, path, "JPEG", job.profile, exif, quality=quality, subsampling=0)


def pillow_image(samples: Floats) -> Image.Image:
    """Samples [H, W, 1..4] rounded to mode L, LA, RGB or RGBA."""
    levels = quantised(samples, 8)
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def in_colour(image: Image.Image) -> Image.Image:
    """RGB or RGBA, for formats without grey."""
    return image.convert({"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode))


def save(image: Image.Image, path: Path, pillow_format: str, profile: bytes | None, exif: bytes | None, **options: Any) -> None:
    """Pillow's save, with profile and EXIF only where there are some."""
    beside = {"icc_profile": profile, "exif": exif}
    image.save(path, format=pillow_format, **{name: value for name, value in beside.items() if value is not None}, **options)


def exif_with_workflow(exif: bytes | None, metadata: dict[str, str]) -> bytes | None:
    """ComfyUI's layout: 0x0110 "prompt:{json}", then 0x010F "workflow:{json}" and downward for the others."""
    if not metadata:
        return exif
    block = Image.Exif()
    block.load(exif or b"")
    others = [name for name in metadata if name != "prompt"]
    for tag, name in [(PROMPT_TAG, "prompt")] * ("prompt" in metadata) + [(NEXT_TAG - i, name) for i, name in enumerate(others)]:
        block[tag] = f"{name}:{metadata[name]}"
    return block.tobytes()


def exif_with_comment(exif: bytes | None, metadata: dict[str, str]) -> bytes | None:
    """The texts as one JSON object in the EXIF user comment."""
    if not metadata:
        return exif
    block = Image.Exif()
    block.load(exif or b"")
    comment = {**block.get_ifd(EXIF_IFD), USER_COMMENT: b"ASCII\0\0\0" + json.dumps(metadata).encode("ascii")}
    block[EXIF_IFD] = comment
    return block.tobytes()
