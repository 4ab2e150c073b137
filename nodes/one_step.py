"""One-step restoration: load a generator, restore a picture, or work on its latents."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.imaging.color_fix import METHODS as COLOR_FIXES
from ..core.imaging.color_fix import Method
from ..core.methods.coding import MODES, Mode, decode_latent, encode_picture
from ..core.methods.one_step import Generator, Tiling, restore, restore_latent
from ..core.models.offload import OFFLOADS, Offload
from ..core.models.prior import Prior
from ..core.runtime import DTYPES
from ..core.weights.bases import base_choices
from ..core.weights.generators import METHODS, load_generator, weights_choices
from ..core.weights.options import POSTERIORS, PRESETS, LoadOptions, Posterior
from .latents import Latent, scaled, with_samples
from .sockets import GENERATOR, PRIOR, InputTypes, choice, integer, number, seed, socket, switch, text

CATEGORY = "image/restoration/one step"


def tile_size() -> Any:
    return integer(512, 64, 4096, "Side in pixels of the tiles that go through the networks. Smaller needs less memory.", step=64)


def tiling() -> Any:
    return choice(
        list(MODES),
        "auto",
        "How tiles come together where a picture needs several. exact: as if there were none, with activations in main memory. "
        "streamed: hardly any memory, colours very slightly off. auto: exact up to 16 megapixels where the memory suffices.",
        advanced=True,
    )


class KintsugiLoadGenerator:
    DISPLAY_NAME = "Load One-Step Generator (TSD-SR, GenDR, InstaRevive)"
    DESCRIPTION = "Load a restorer that needs a single network call, with the prior that encodes and decodes for it."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["restorer", "super-resolution model", "TSD-SR", "GenDR", "InstaRevive", "one-step diffusion", "checkpoint"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = (GENERATOR, PRIOR), ("generator", "prior"), "load"
    OUTPUT_TOOLTIPS = ("The restorer, for Restore Image and Restore Latent.", "Its prior, for Encode and Decode.")

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "method": choice(
                    list(METHODS),
                    "gendr",
                    "The published method: a one-step Stable Diffusion 3 (tsd-sr), U-Net (gendr) or PixArt (instarevive).",
                ),
                "weights": choice(
                    weights_choices(),
                    "auto",
                    "auto: the full-size file when it is there, else the small embedded weights (the log says which).",
                ),
                "dtype": choice(
                    ["auto", *DTYPES], "auto", "Number format of the networks. auto: fp32 on a CPU, bf16 on a GPU.", advanced=True
                ),
            },
            "optional": {
                "offload": choice(
                    list(OFFLOADS),
                    "none",
                    "For small GPUs: weights wait in main memory between calls, whole (model) or in groups, or are kept in 8 bits.",
                    advanced=True,
                ),
                "base": choice(
                    ["auto", *base_choices()],
                    "auto",
                    "The published prior that TSD-SR's adapters or InstaRevive's VAE and text encoder belong to. auto looks for it.",
                    advanced=True,
                ),
                "preset": choice(list(PRESETS), "photo", "What InstaRevive is told the picture is: its stored prompt.", advanced=True),
                "posterior": choice(
                    list(POSTERIORS), "sample", "How TSD-SR encodes: sample, as it was trained (by the seed), or mean.", advanced=True
                ),
                "fold_constants": switch(
                    True, "Compute once what the stored prompt decides: less memory. Off lets Restore Image take a prompt.", advanced=True
                ),
            },
        }

    def load(
        self,
        method: str,
        weights: str,
        dtype: str,
        offload: Offload = "none",
        base: str = "auto",
        preset: str = "photo",
        posterior: Posterior = "sample",
        fold_constants: bool = True,
    ) -> tuple[Generator, Prior]:
        options = LoadOptions(offload=offload, base=base, preset=preset, posterior=posterior, fold_constants=fold_constants)
        generator = load_generator(method, weights, dtype, options)
        return generator, generator.prior


class KintsugiRestoreOneStep:
    DISPLAY_NAME = "Restore Image (one step)"
    DESCRIPTION = "Restore a degraded picture, tile by tile where it is large, and enlarge it if wanted."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["upscale", "super-resolution", "denoise", "deblur", "remove JPEG artifacts", "enhance"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("restored",), "restore"
    OUTPUT_TOOLTIPS = ("The restored pictures.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "generator": socket(GENERATOR, "A one-step restorer from Load One-Step Generator."),
                "image": socket("IMAGE", "The degraded pictures."),
                "scale": number(
                    1.0, 0.25, 8.0, "How many times larger the result is. 1 keeps the size, 4 is the usual enlargement.", step=0.25
                ),
                "seed": seed(),
                "tile": tile_size(),
                "overlap": integer(
                    64, 0, 512, "Pixels that neighbouring tiles share and that are blended, against seams.", step=16, advanced=True
                ),
                "color_fix": choice(
                    list(COLOR_FIXES),
                    "wavelet",
                    "Take the colours of the degraded picture: wavelet (low frequencies), adain (mean and contrast), lab.",
                ),
            },
            "optional": {
                "prompt": text(
                    "", "What the picture shows, instead of the stored prompt. Needs text encoders and fold_constants off.", multiline=True
                ),
                "mask": socket("MASK", "Restore only what is white here (inpainting); the rest keeps its pixels."),
            },
        }

    def restore(
        self,
        generator: Generator,
        image: Tensor,
        scale: float,
        seed: int,
        tile: int,
        overlap: int,
        color_fix: Method,
        prompt: str = "",
        mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        return (restore(generator.with_prompt(prompt), image, scale, seed, Tiling(tile, overlap), color_fix, mask),)


class KintsugiOneStepLatent:
    DISPLAY_NAME = "Restore Latent (one step)"
    DESCRIPTION = "Restore a latent with one network call."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["one-step", "GenDR latent"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("LATENT",), ("restored",), "restore"
    OUTPUT_TOOLTIPS = ("The restored latent; decode it with the same prior.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "generator": socket(GENERATOR, "A one-step restorer from Load One-Step Generator."),
                "latent": socket("LATENT", "The degraded picture, encoded by the same prior."),
                "seed": seed(),
            }
        }

    def restore(self, generator: Generator, latent: Latent, seed: int) -> tuple[Latent]:
        prior = generator.prior
        return (with_samples(latent, prior, restore_latent(generator, scaled(prior, latent), seed)),)


class KintsugiEncode:
    DISPLAY_NAME = "Encode Image (prior's VAE)"
    DESCRIPTION = "Turn pictures into the prior's latents, in tiles where they are large."
    CATEGORY = "image/restoration/latent"
    SEARCH_ALIASES = ["VAE encode", "tiled VAE"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("LATENT",), ("latent",), "encode"
    OUTPUT_TOOLTIPS = ("The latent, as VAE Encode of ComfyUI gives it for this family.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "The prior whose VAE encodes."),
                "image": socket("IMAGE", "Pictures of any size; sides grow to whole latent pixels by reflection."),
                "tile": tile_size(),
            },
            "optional": {
                "tiling": tiling(),
                "posterior": choice(
                    list(POSTERIORS), "mean", "The VAE's best guess (mean), or drawn around it by the seed (sample).", advanced=True
                ),
                "seed": seed("For posterior sample alone: same seed, same latent. Picture i of a batch uses seed + i.", advanced=True),
            },
        }

    def encode(
        self, prior: Prior, image: Tensor, tile: int, tiling: Mode = "auto", posterior: Posterior = "mean", seed: int = 0
    ) -> tuple[Latent]:
        encoded = encode_picture(prior, image, tile, tiling, seed if posterior == "sample" else None)
        return (with_samples({}, prior, encoded),)


class KintsugiDecode:
    DISPLAY_NAME = "Decode Latent (prior's VAE)"
    DESCRIPTION = "Turn the prior's latents back into pictures, in tiles where they are large."
    CATEGORY = "image/restoration/latent"
    SEARCH_ALIASES = ["VAE decode", "tiled VAE"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("image",), "decode"
    OUTPUT_TOOLTIPS = ("The decoded pictures.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "The prior that made the latent."),
                "latent": socket("LATENT", "A latent of this prior."),
                "tile": tile_size(),
            },
            "optional": {"tiling": tiling()},
        }

    def decode(self, prior: Prior, latent: Latent, tile: int, tiling: Mode = "auto") -> tuple[Tensor]:
        return (decode_latent(prior, scaled(prior, latent), tile, tiling),)


NODES = (KintsugiLoadGenerator, KintsugiRestoreOneStep, KintsugiOneStepLatent, KintsugiEncode, KintsugiDecode)
