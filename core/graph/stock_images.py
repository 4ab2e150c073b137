"""ComfyUI's image file nodes for headless use: same class names, same pixels, same file names."""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import BadValueError, FileAccessError, PictureError
from ..file_names import next_file_names, written_whole
from ..picture_files import file_sha256, picture_names, shown
from ..runtime import current_host

_EMPTY_MASK = (64, 64)


class LoadImage:
    """File -> IMAGE and MASK (1 - alpha). 8 bit, no colour management: as ComfyUI's. KintsugiLoadPhoto keeps both."""

    CATEGORY = "image"
    DESCRIPTION = "Load a picture from the input folder."
    RETURN_TYPES, FUNCTION = ("IMAGE", "MASK"), "load_image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "image": (picture_names(current_host().folders.input), {"image_upload": True, "tooltip": "A file of the input folder."})
            }
        }

    def load_image(self, image: str) -> tuple[Tensor, Tensor]:
        """image: a name in the input folder, or an annotated one such as `a.png [output]`.

        Returns IMAGE [B, H, W, 3] and MASK [B, H, W], in 0..1; B is the number of frames of the first frame's size. A
        picture without alpha has a mask of zeros [1, 64, 64]. Raises PictureError for a file that is no readable picture.
        """
        path = current_host().folders.find(image)
        try:
            with Image.open(path) as file:
                frames = list(_frames(file))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise PictureError(f"cannot be read as a picture: {error}", where=str(path), way_out="Choose another file.") from error
        pictures, masks = [picture for picture, _ in frames], [mask for _, mask in frames]
        return torch.cat(pictures), torch.cat(_equally_large(masks, pictures[0].shape[1:3]))

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:  # noqa: N802
        return file_sha256(current_host().folders.find(image))

    @classmethod
    def VALIDATE_INPUTS(cls, image: str | None) -> bool | str:  # noqa: N802
        return image is None or _is_input_file(image) or f"Invalid image file: {image}"


def _is_input_file(name: str) -> bool:
    try:
        return current_host().folders.find(name).is_file()
    except (FileAccessError, ValueError, OSError):
        return False


def _frames(file: Image.Image) -> list[tuple[Tensor, Tensor]]:
    """(IMAGE [1, H, W, 3], MASK [1, h, w]) of each frame that has the first one's size; an MPO's first frame only."""
    frames: list[tuple[Tensor, Tensor]] = []
    for frame in ImageSequence.Iterator(file):
        upright = ImageOps.exif_transpose(frame)
        if upright.mode == "I":
            upright = upright.point(lambda value: value * (1 / 255))
        picture = _to_tensor(upright.convert("RGB"))
        if not frames or picture.shape == frames[0][0].shape:
            frames.append((picture, _mask(upright)))
        if file.format == "MPO":
            break
    return frames


def _mask(picture: Image.Image) -> Tensor:
    if "A" in picture.getbands():
        return 1.0 - _to_tensor(picture.getchannel("A"))
    if picture.mode == "P" and "transparency" in picture.info:
        return 1.0 - _to_tensor(picture.convert("RGBA").getchannel("A"))
    return torch.zeros(1, *_EMPTY_MASK)


def _equally_large(masks: list[Tensor], size: torch.Size) -> list[Tensor]:
    """Frames with and without alpha may alternate (GIF): then those without are nowhere transparent at full size."""
    if len({mask.shape for mask in masks}) == 1:
        return masks
    return [mask if mask.shape[1:] == size else torch.zeros(1, *size) for mask in masks]


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)[None]


class SaveImage:
    """IMAGE -> PNG files in the output folder, 8 bit by truncation, with prompt and workflow inside: as ComfyUI's."""

    CATEGORY = "image"
    DESCRIPTION = "Save the pictures as PNG files in the output folder."
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "save_images", True
    KIND, COMPRESSION, SUFFIX = "output", 4, ""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Sockets and widgets, as ComfyUI's node of this name has them."""
        tooltip = "How the file names begin. May hold subfolders, %width%, %height%, %date:yyyy-MM-dd% and %Node.widget%."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to save."}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "tooltip": tooltip}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """images [B, H, W, 3 or 4] in 0..1. Each file is written under a temporary name and renamed.

        Raises BadValueError for NaN and for other channel counts, FileAccessError for a folder that cannot be written
        or a prefix that leaves it.
        """
        folder = getattr(current_host().folders, self.KIND)
        count, height, width, channels = images.shape
        if channels not in (3, 4):
            raise BadValueError(f"A picture to save has {channels} channels, expected 3 or 4.")
        if torch.isnan(images).any():
            raise BadValueError("A picture to save has values that are not numbers (NaN).", way_out="Check the node that made it.")
        paths = next_file_names(folder, filename_prefix + self.SUFFIX, width, height, count)
        texts = png_texts(prompt, extra_pnginfo) if current_host().stores_workflows else None
        for image, path in zip(images, paths, strict=True):
            pixels = np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)
            with written_whole(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=texts, compress_level=self.COMPRESSION)
        return {"ui": {"images": [shown(path, folder, self.KIND) for path in paths]}}


def png_texts(prompt: dict[str, Any] | None, extra_pnginfo: dict[str, Any] | None) -> PngInfo:
    """Text chunks `prompt` and one per key of extra_pnginfo (`workflow`, ...), as JSON."""
    texts = PngInfo()
    if prompt is not None:
        texts.add_text("prompt", json.dumps(prompt))
    for name, content in (extra_pnginfo or {}).items():
        texts.add_text(name, json.dumps(content))
    return texts


class PreviewImage(SaveImage):
    """As SaveImage, into the temp folder, under a name of its own per node."""

    DESCRIPTION = "Show the pictures. The files are temporary."
    KIND, COMPRESSION = "temp", 1

    def __init__(self) -> None:
        self.SUFFIX = "_temp_" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {"images": ("IMAGE", {"tooltip": "The pictures to show."})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }
