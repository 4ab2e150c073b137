"""ComfyUI's nodes that change pictures in memory, for headless use: same class names, same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BadValueError

METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROPS = ["disabled", "center"]
LARGEST_SIDE = 16384

_IMAGE = ("IMAGE", {"tooltip": "The pictures to work on."})
_METHOD = (METHODS, {"tooltip": "How pixels are interpolated. None of them smooths before shrinking but area and lanczos."})


def resize(images: Tensor, width: int, height: int, method: str, crop: str) -> Tensor:
    """images [B, H, W, C] -> [B, height, width, C]; crop `center` cuts to the new aspect first. Values are not clamped.

    lanczos goes through 8-bit pictures, which truncates; the others are torch's interpolate without antialias.
    """
    planes = images.movedim(-1, 1)
    if crop == "center":
        planes = _center_crop(planes, width, height)
    if method == "lanczos":
        return torch.stack([_lanczos(plane, width, height) for plane in planes]).to(images.device, images.dtype)
    return torch.nn.functional.interpolate(planes, size=(height, width), mode=method).movedim(1, -1)


def _center_crop(planes: Tensor, width: int, height: int) -> Tensor:
    """[B, C, H, W] cut at two opposite sides to the aspect width : height."""
    old_height, old_width = planes.shape[-2:]
    old, new = old_width / old_height, width / height
    x = y = 0
    if old > new:
        x = round((old_width - old_width * (new / old)) / 2)
    elif old < new:
        y = round((old_height - old_height * (old / new)) / 2)
    return planes[..., y : old_height - y, x : old_width - x]


def _lanczos(plane: Tensor, width: int, height: int) -> Tensor:
    """[C, H, W] -> [height, width, C]"""
    pixels = np.clip(255.0 * plane.movedim(0, -1).cpu().numpy(), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)


class ImageScale:
    """To a given size; a side of 0 follows the aspect."""

    CATEGORY = "image/upscaling"
    DESCRIPTION = "Resize to a given width and height."
    RETURN_TYPES, FUNCTION = ("IMAGE",), "upscale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Sockets and widgets, as ComfyUI's node of this name has them."""
        side = {"default": 512, "min": 0, "max": LARGEST_SIDE, "step": 1, "tooltip": "Pixels; 0 keeps the aspect."}
        return {
            "required": {
                "image": _IMAGE,
                "upscale_method": _METHOD,
                "width": ("INT", side),
                "height": ("INT", side),
                "crop": (CROPS, {"tooltip": "center cuts to the new aspect instead of stretching."}),
            }
        }

    def upscale(self, image: Tensor, upscale_method: str, width: int, height: int, crop: str) -> tuple[Tensor]:
        """image [B, H, W, C] -> [B, height, width, C], sides in pixels; both 0 returns the input."""
        if width == 0 and height == 0:
            return (image,)
        old_height, old_width = image.shape[1:3]
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return (resize(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    """By a factor."""

    CATEGORY = "image/upscaling"
    DESCRIPTION = "Resize by a factor."
    RETURN_TYPES, FUNCTION = ("IMAGE",), "upscale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        factor = {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01, "tooltip": "2 doubles both sides."}
        return {"required": {"image": _IMAGE, "upscale_method": _METHOD, "scale_by": ("FLOAT", factor)}}

    def upscale(self, image: Tensor, upscale_method: str, scale_by: float) -> tuple[Tensor]:
        """image [B, H, W, C] -> both sides times scale_by, rounded; BadValueError when no pixel is left."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        if height == 0 or width == 0:
            raise BadValueError(f"A picture of {image.shape[2]}x{image.shape[1]} pixels scaled by {scale_by} has no pixels left.")
        return (resize(image, width, height, upscale_method, "disabled"),)


class ImageInvert:
    """1 - x."""

    CATEGORY = "image"
    DESCRIPTION = "Turn the colours into their opposites."
    RETURN_TYPES, FUNCTION = ("IMAGE",), "invert"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"image": _IMAGE}}

    def invert(self, image: Tensor) -> tuple[Tensor]:
        """1 - image, any shape, 0..1."""
        return (1.0 - image,)


class ImageBatch:
    """The second after the first, brought to its size."""

    CATEGORY = "image"
    DESCRIPTION = "Put two batches of pictures into one."
    RETURN_TYPES, FUNCTION = ("IMAGE",), "batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        second = ("IMAGE", {"tooltip": "Resized (bilinear, centre crop) when its size differs from the first."})
        return {"required": {"image1": _IMAGE, "image2": second}}

    def batch(self, image1: Tensor, image2: Tensor) -> tuple[Tensor]:
        """[B1, H, W, C] and [B2, h, w, C] -> [B1 + B2, H, W, C]; BadValueError for unequal channels."""
        if image1.shape[-1] != image2.shape[-1]:
            raise BadValueError(f"The pictures have {image1.shape[-1]} and {image2.shape[-1]} channels, expected equal numbers.")
        if image1.shape[1:3] != image2.shape[1:3]:
            image2 = resize(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
        return (torch.cat((image1, image2)),)


class MaskToImage:
    """Grey."""

    CATEGORY = "mask"
    DESCRIPTION = "Show a mask as a grey picture."
    RETURN_TYPES, FUNCTION = ("IMAGE",), "mask_to_image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"mask": ("MASK", {"tooltip": "Its values become grey levels."})}}

    def mask_to_image(self, mask: Tensor) -> tuple[Tensor]:
        """mask [B, H, W] or [H, W] -> [B, H, W, 3]"""
        return (mask.reshape(-1, *mask.shape[-2:], 1).expand(-1, -1, -1, 3),)
