"""Nodes that read and write photo files whole: depth, profile, EXIF and transparency."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from ..core.errors import FileAccessError
from ..core.file_names import next_file_names
from ..core.imaging.alpha import alpha_of
from ..core.imaging.files_apart import read_for_graph, write_for_graph
from ..core.imaging.photo import FORMATS, BitDepth, PhotoDetails, as_format, suffix_of
from ..core.imaging.writing import QUALITY, write_photo
from ..core.picture_files import file_sha256, picture_names, shown
from ..core.runtime import current_host
from .sockets import PHOTO, InputTypes, choice, integer, socket, switch, text

CATEGORY = "image/restoration/files"
SAME = "same as source"


class KintsugiLoadPhoto:
    DISPLAY_NAME = "Load Photo (16 bit, ICC, EXIF)"
    DESCRIPTION = (
        "Read a picture file without loss: 16 bits stay 16 bits, the colour profile is converted to sRGB, the EXIF rotation is applied, "
        "and what Save Photo needs to write the file back as it came travels along."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["open image", "read picture", "import", "tiff", "16-bit", "color profile", "rotation"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE", "MASK", PHOTO), ("image", "mask", "photo"), "load"
    OUTPUT_TOOLTIPS = (
        "The picture in sRGB, upright.",
        "What is transparent: 1 - alpha, all 0 for a file without transparency.",
        "Name, format, bit depth, profile and EXIF of the file, for Save Photo.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        names = picture_names(current_host().folders.input)
        entry: tuple[Any, dict[str, Any]] = (
            names,
            {"image_upload": True, "tooltip": "A PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF file of the input folder."},
        )
        return {"required": {"image": entry}}

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:  # noqa: N802
        try:
            found = current_host().folders.find(image)
        except FileAccessError as error:
            return str(error)
        return True if found.is_file() else f"Invalid image file: {image}. There is no such file in {found.parent}."

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:  # noqa: N802
        return file_sha256(current_host().folders.find(image))

    def load(self, image: str) -> tuple[Tensor, Tensor, PhotoDetails]:
        photo = read_for_graph(current_host().folders.find(image))
        mask = torch.zeros(photo.picture.shape[:3]) if photo.alpha is None else 1 - photo.alpha
        return photo.picture, mask, photo.details


class KintsugiSavePhoto:
    DISPLAY_NAME = "Save Photo (16 bit, ICC, EXIF)"
    DESCRIPTION = "Write pictures to the output folder, rounded to 8 or 16 bits, with the source's profile, EXIF and transparency."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["export", "write image", "jpeg", "webp", "avif", "tiff", "16-bit", "metadata"]
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "save", True
    OUTPUT_TOOLTIPS = ()

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "images": socket("IMAGE", "The pictures to write, one file each."),
                "filename_prefix": text(
                    "restored",
                    "Start of the file names; may name a subfolder and hold %width%, %height%, %date:yyyy-MM-dd% or %batch_num%.",
                ),
                "format": choice([SAME, *FORMATS], SAME, "File format. Same as source needs the photo input, and is PNG without it."),
                "bit_depth": choice(
                    [SAME, "8", "16"], SAME, "Bits per channel; PNG and TIFF have 16. Same as source is 8 without the photo input."
                ),
                "quality": integer(QUALITY, 1, 100, "Of JPEG, WebP and AVIF: 100 is best (in WebP lossless) and largest."),
                "keep_metadata": switch(
                    True,
                    "Write the source's EXIF and convert to its colour profile. Off: plain sRGB without EXIF. The workflow is always kept.",
                ),
            },
            "optional": {
                "photo": socket(PHOTO, "The source's details, from Load Photo."),
                "mask": socket("MASK", "What is transparent, from Load Photo; scaled to the picture. All 0 writes no transparency."),
            },
            "hidden": cast(Any, {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}),
        }

    def save(
        self,
        images: Tensor,
        filename_prefix: str,
        format: str,
        bit_depth: str,
        quality: int,
        keep_metadata: bool,
        photo: PhotoDetails | None = None,
        mask: Tensor | None = None,
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        details = photo or PhotoDetails()
        file_format = details.format if format == SAME else as_format(format)
        depth = None if bit_depth == SAME else cast(BitDepth, int(bit_depth))
        if not keep_metadata:
            details = replace(details, icc=None, exif=None)
        folder = current_host().folders.output
        count, height, width = images.shape[:3]
        paths = next_file_names(folder, filename_prefix, width, height, count, suffix_of(file_format))
        progress = current_host().progress(count, "Saving")
        for index, path in enumerate(paths):
            alpha = alpha_of(mask, index, height, width)
            metadata = workflow_texts(prompt, extra_pnginfo)
            arguments = (path, images[index], alpha, details, file_format, depth, quality, metadata)
            write_for_graph(path, partial(write_photo, *arguments, overwrite=False))
            progress.advance()
        return {"ui": {"images": [shown(path, folder) for path in paths]}}


def workflow_texts(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> dict[str, str]:
    """What a picture carries so that its graph can be opened from it; nothing where the host does not want that."""
    if not current_host().stores_workflows:
        return {}
    parts = ({} if prompt is None else {"prompt": prompt}) | (extra_pnginfo or {})
    return {name: json.dumps(value) for name, value in parts.items()}


NODES: tuple[type, ...] = (KintsugiLoadPhoto, KintsugiSavePhoto)
