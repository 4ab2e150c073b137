"""Nodes that cut a painted part out of a picture, and put it back restored."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from ..core.imaging.regions import SHAPES, Cropping, Region, Shape, crop_regions, paste_regions
from .sockets import REGION, InputTypes, choice, integer, number, socket, switch

CATEGORY = "image/restoration/region"


class KintsugiCropRegion:
    DISPLAY_NAME = "Crop Region (around a mask)"
    DESCRIPTION = (
        "Cut out the part of a picture that a mask marks, such as a face, to restore it alone and paste it back with Paste Region."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["face", "mask crop", "crop and stitch", "inpaint crop", "detailer", "bounding box", "cut out"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE", REGION), ("cropped", "region"), "crop"
    OUTPUT_TOOLTIPS = ("The cut-out parts, all of one size.", "Where they came from, for Paste Region.")

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to cut from."),
                "mask": socket(
                    "MASK",
                    "What to cut out, painted on the picture: right-click on Load Photo, Open in MaskEditor. One mask, or one for each "
                    "picture. Where none is painted at all the whole picture is taken.",
                ),
                "padding": number(0.25, 0.0, 4.0, "What is added on every side, as a share of the painted part's longer side.", step=0.05),
                "enlarge_to": integer(
                    512,
                    0,
                    4096,
                    "A crop whose longer side is smaller comes out enlarged to this many pixels, a size that the networks know. 0: never.",
                    step=16,
                ),
                "separate": switch(
                    False, "Every painted part that stands alone is a crop of its own. Off: one crop around all that is painted."
                ),
            },
            "optional": {
                "square": switch(False, "Take in more of the picture until the crop is square.", advanced=True),
                "multiple": integer(
                    16,
                    1,
                    128,
                    "Sides become multiples of this many pixels, as encoders need, except where the picture ends.",
                    advanced=True,
                ),
            },
        }

    def crop(
        self, image: Tensor, mask: Tensor, padding: float, enlarge_to: int, separate: bool, square: bool = False, multiple: int = 16
    ) -> tuple[Tensor, Region]:
        return crop_regions(image[..., :3], mask, Cropping(padding, enlarge_to, square, multiple, separate))


class KintsugiPasteRegion:
    DISPLAY_NAME = "Paste Region (feathered)"
    DESCRIPTION = "Put restored crops of Crop Region back into their picture. Everything outside keeps its pixels exactly."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["face", "stitch", "uncrop", "inpaint stitch", "blend", "composite masked", "detailer"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("image",), "paste"
    OUTPUT_TOOLTIPS = ("The pictures with the restored parts in them, at their own size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures that the crops were cut from; they may have been enlarged since."),
                "restored": socket("IMAGE", "The restored crops. Of another size they are scaled back."),
                "region": socket(REGION, "Where the crops came from, from Crop Region."),
                "feather": integer(16, 0, 1024, "Pixels over which the restored part fades into the picture. 0 is a hard edge."),
                "shape": choice(
                    list(SHAPES),
                    "painted",
                    "painted: what was painted is replaced, and the fade lies around it. box: the whole crop is, and the fade lies inside.",
                ),
            }
        }

    def paste(self, image: Tensor, restored: Tensor, region: Region, feather: int, shape: str) -> tuple[Tensor]:
        return (paste_regions(image[..., :3], restored[..., :3], region, feather, cast(Shape, shape)),)


NODES: tuple[type, ...] = (KintsugiCropRegion, KintsugiPasteRegion)
