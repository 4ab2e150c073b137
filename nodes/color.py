"""The node that gives a restored picture the colours of its source."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from ..core.imaging.color_fix import METHODS, Method, fix_colors
from .sockets import InputTypes, choice, number, socket


class KintsugiColorFix:
    DISPLAY_NAME = "Fix Colors (wavelet, AdaIN, Lab)"
    DESCRIPTION = "Take the colours from a reference and the detail from the picture: removes the tint that generative restoration leaves."
    CATEGORY = "image/restoration/color"
    SEARCH_ALIASES = ["color correction", "colour match", "tint", "color transfer", "StableSR"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("image",), "fix"
    OUTPUT_TOOLTIPS = ("The pictures with the reference's colours, at their own size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures whose colours drifted."),
                "reference": socket(
                    "IMAGE", "Where the colours are right: the picture before restoration. Any size; one, or one for each."
                ),
                "method": choice(
                    [method for method in METHODS if method != "none"],
                    "wavelet",
                    "wavelet: the coarse colours of every place come from the reference. "
                    "adain: brightness and contrast of the whole channels do. "
                    "lab: only the coarse hue and saturation do, the restored lightness stays.",
                ),
                "strength": number(1.0, 0.0, 1.0, "0 changes nothing, 1 corrects fully."),
            }
        }

    def fix(self, image: Tensor, reference: Tensor, method: str, strength: float) -> tuple[Tensor]:
        fixed = fix_colors(image[..., :3].movedim(3, 1), reference[..., :3].movedim(3, 1), cast(Method, method), strength)
        return (fixed.clamp(0, 1).movedim(1, 3).contiguous(),)


NODES: tuple[type, ...] = (KintsugiColorFix,)
