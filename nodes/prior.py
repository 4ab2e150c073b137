"""The prior that restorers of one family share, loaded by itself."""

from __future__ import annotations

from ..core.models.offload import OFFLOADS, Offload
from ..core.models.prior import Prior
from ..core.runtime import DTYPES
from ..core.weights.bases import base_choices
from ..core.weights.families import FAMILIES
from ..core.weights.nf4 import QUANTIZATIONS, Quantization
from ..core.weights.priors import load_prior
from .sockets import PRIOR, InputTypes, choice


class KintsugiLoadPrior:
    DISPLAY_NAME = "Load Prior (VAE, denoiser and text encoders)"
    DESCRIPTION = "Load a published diffusion model for the nodes that build on it, from a diffusers folder or a single file."
    CATEGORY = "image/restoration/latent"
    SEARCH_ALIASES = ["checkpoint", "diffusers", "Stable Diffusion 3", "SD2.1", "PixArt", "SDXL", "Flux", "GGUF", "VAE", "base model"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (PRIOR,), ("prior",), "load"
    OUTPUT_TOOLTIPS = ("The prior, for Encode, Decode and the nodes that sample with it.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "family": choice(list(FAMILIES), "sd3", "Which published model it is. Latents of one family mean nothing to another."),
                "weights": choice(
                    ["auto", "embedded", *base_choices(quantised=True)],
                    "auto",
                    "auto: the family's model when it is there, else the small embedded one (the log says which).",
                ),
                "dtype": choice(
                    ["auto", *DTYPES], "auto", "Number format of the networks. auto: fp32 on a CPU, bf16 on a GPU.", advanced=True
                ),
                "offload": choice(
                    list(OFFLOADS),
                    "none",
                    "For small GPUs: weights wait in main memory between calls, whole (model) or in groups, or are kept in 8 bits.",
                    advanced=True,
                ),
            },
            "optional": {
                "quantization": choice(
                    list(QUANTIZATIONS),
                    "none",
                    "nf4: the blocks of a Flux transformer become 4 bits per weight as they are read, with the package bitsandbytes. "
                    "Files that are quantised already need none.",
                    advanced=True,
                )
            },
        }

    def load(self, family: str, weights: str, dtype: str, offload: Offload, quantization: Quantization = "none") -> tuple[Prior]:
        return (load_prior(family, weights, dtype, offload, quantization),)


NODES = (KintsugiLoadPrior,)
