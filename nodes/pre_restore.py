"""The node that takes the worst damage away before a generative restorer works."""

from __future__ import annotations

from torch import Tensor

from ..core.methods.pre_restore import pre_restore
from ..core.runtime import DTYPES
from ..core.weights.swinir import load_swinir, swinir_choices
from .one_step import CATEGORY, tile_size
from .sockets import InputTypes, choice, socket


class KintsugiPreRestore:
    DISPLAY_NAME = "Pre-Restore Image (SwinIR)"
    DESCRIPTION = "Take blur, noise and compression away coarsely, so that a one-step restorer starts from a clean picture."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["SwinIR", "DiffBIR", "InstaRevive", "denoise", "deblur", "coarse restoration", "remove JPEG artifacts"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("coarse",), "restore"
    OUTPUT_TOOLTIPS = ("The coarse restoration, at the picture's own size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The degraded pictures, at the size they are to be restored at."),
                "weights": choice(
                    swinir_choices(),
                    "auto",
                    "auto: the published general restorer when it is there, else the small embedded one (the log says which).",
                ),
                "dtype": choice(
                    ["auto", *DTYPES], "auto", "Number format of the network. auto: fp32 on a CPU, bf16 on a GPU.", advanced=True
                ),
                "tile": tile_size(),
            }
        }

    def restore(self, image: Tensor, weights: str, dtype: str, tile: int) -> tuple[Tensor]:
        return (pre_restore(load_swinir(weights, dtype), image, tile),)


NODES = (KintsugiPreRestore,)
