"""Nodes that spoil pictures on purpose: whole degradation models, and their stages one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from ..core.degradation import steps
from ..core.degradation.codecs import ChromaSampling
from ..core.degradation.overrides import parse_overrides
from ..core.degradation.pipeline import degrade
from ..core.degradation.presets import PRESETS
from ..core.degradation.resampling import RESIZE_MODES, ResizeMode
from .sockets import InputTypes, choice, integer, number, seed, socket, switch, text

CATEGORY = "image/restoration/degrade"
SINC, SIMULATED = "sinc", "simulated-jpeg"


class KintsugiDegrade:
    DISPLAY_NAME = "Degrade Image (Real-ESRGAN and others)"
    DESCRIPTION = "Make a low-quality version of a picture by a published degradation model, with everything it did as JSON."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["low quality", "LQ", "second-order degradation", "Real-ESRGAN", "APISR", "synthetic", "downscale"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE", "STRING"), ("degraded", "parameters"), "degrade"
    OUTPUT_TOOLTIPS = (
        "The low-quality pictures, smaller by the scale.",
        "A JSON list with every sampled number, one entry per picture; `kintsugi degrade --replay` repeats an entry exactly.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        presets = "\n".join(f"{preset.name}: {preset.description}" for preset in PRESETS.values())
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to degrade."),
                "preset": choice(list(PRESETS), "real-esrgan", f"The degradation model.\n{presets}"),
                "scale": integer(
                    4,
                    1,
                    8,
                    "How many times smaller the result is: 4 makes 512 pixels 128. 1 keeps the size, as for rain or mask.",
                ),
                "seed": seed("Same seed, same degradation. Picture i of a batch uses seed + i."),
                "overrides": text(
                    "{}",
                    "Numbers of the preset to change: a JSON object that has an object of numbers for each stage name, such as blur_1. "
                    "An unknown name is answered with the known ones.",
                    multiline=True,
                    advanced=True,
                ),
            }
        }

    def degrade(self, image: Tensor, preset: str, scale: int, seed: int, overrides: str) -> tuple[Tensor, str]:
        degraded = degrade(_planes(image), preset, scale, seed, parse_overrides(overrides))
        return _image(degraded.low_quality), json.dumps(degraded.parameters)


class KintsugiDegradeBlur:
    DISPLAY_NAME = "Degrade by Blur (Gaussian, plateau or sinc kernel)"
    DESCRIPTION = "Filter a picture with one of the blur kernels of the second-order degradation model."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["gaussian blur", "anisotropic", "defocus", "ringing", "low-pass"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("blurred",), "blur"
    OUTPUT_TOOLTIPS = ("The blurred pictures, at the same size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to blur."),
                "kernel": choice(
                    [*steps.KERNEL_FAMILIES, SINC], "iso", "The kernel's shape. iso is round, aniso an ellipse; sinc rings at edges."
                ),
                "size": integer(21, 3, 101, "Width of the kernel in pixels, an odd number.", step=2),
                "sigma": number(1.5, 0.05, 50.0, "Width of the blur in pixels. Not used by sinc."),
                "sigma_y": number(1.5, 0.05, 50.0, "Width across, in pixels. Used by the aniso kernels."),
                "rotation": number(0.0, -180.0, 180.0, "Turn of the ellipse in degrees. Used by the aniso kernels.", step=1.0),
                "beta": number(1.0, 0.1, 8.0, "Shape of the generalised and plateau kernels: small is peaked, large is flat-topped."),
                "cutoff": number(2.0, 0.1, 3.14, "Highest frequency kept by sinc, in radians per pixel; smaller blurs more."),
            }
        }

    def blur(
        self,
        image: Tensor,
        kernel: steps.KernelFamily,
        size: int,
        sigma: float,
        sigma_y: float,
        rotation: float,
        beta: float,
        cutoff: float,
    ) -> tuple[Tensor]:
        if kernel == SINC:
            return (_apply(image, lambda _: steps.Sinc(size=size, cutoff=cutoff)),)
        turn = math.radians(rotation)
        step = steps.Blur(family=kernel, size=size, sigma_x=sigma, sigma_y=sigma_y, rotation=turn, beta=beta)
        return (_apply(image, lambda _: step),)


class KintsugiDegradeResize:
    DISPLAY_NAME = "Degrade by Resize (area, bilinear or bicubic)"
    DESCRIPTION = "Make a picture smaller or larger as degradation models do, with or without antialiasing."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["downscale", "downsample", "aliasing", "shrink"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("resized",), "resize"
    OUTPUT_TOOLTIPS = ("The resized pictures; at their old size when that is restored.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to resize."),
                "factor": number(0.25, 0.05, 8.0, "Sides are multiplied by this: 0.25 is four times smaller."),
                "mode": choice([*RESIZE_MODES], "bicubic", "How to sample. The plain modes alias when shrinking; antialiased ones do not."),
                "restore_size": switch(False, "Bring the result back to the size it had, in the same mode."),
            }
        }

    def resize(self, image: Tensor, factor: float, mode: ResizeMode, restore_size: bool) -> tuple[Tensor]:
        height, width = image.shape[1:3]
        small = steps.Resize(height=max(1, round(height * factor)), width=max(1, round(width * factor)), mode=mode)
        resized = _apply(image, lambda _: small)
        if restore_size:
            resized = _apply(resized, lambda _: steps.Resize(height=height, width=width, mode=mode))
        return (resized,)


class KintsugiDegradeNoise:
    DISPLAY_NAME = "Degrade by Noise (Gaussian, Poisson or salt and pepper)"
    DESCRIPTION = "Add camera noise to a picture."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["grain", "shot noise", "impulse noise", "add noise"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("noisy",), "add_noise"
    OUTPUT_TOOLTIPS = ("The noisy pictures, at the same size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to add noise to."),
                "noise": choice(["gaussian", "poisson", "salt-and-pepper"], "gaussian", "The kind of noise."),
                "sigma": number(10.0, 0.0, 255.0, "Strength of Gaussian noise: its standard deviation in grey levels of 255.", step=0.5),
                "poisson_scale": number(1.0, 0.0, 10.0, "Strength of Poisson noise: 1 is what the photon counts give."),
                "amount": number(0.05, 0.0, 1.0, "Share of black and white pixels of salt-and-pepper noise."),
                "grey": switch(False, "The same noise in the three channels instead of coloured noise."),
                "seed": seed(),
            }
        }

    def add_noise(
        self, image: Tensor, noise: str, sigma: float, poisson_scale: float, amount: float, grey: bool, seed: int
    ) -> tuple[Tensor]:
        makers: dict[str, Callable[[int], steps.Step]] = {
            "gaussian": lambda own: steps.GaussianNoise(sigma=sigma, grey=grey, seed=own),
            "poisson": lambda own: steps.PoissonNoise(scale=poisson_scale, grey=grey, seed=own),
            "salt-and-pepper": lambda own: steps.SaltAndPepper(amount=amount, seed=own),
        }
        return (_apply(image, lambda index: makers[noise]((seed + index) % 2**63)),)


class KintsugiDegradeCompress:
    DISPLAY_NAME = "Degrade by Compression (JPEG, WebP or AVIF)"
    DESCRIPTION = "Write a picture with a lossy codec and read it again."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["jpeg artifacts", "blocking", "compress", "quality"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("IMAGE",), ("compressed",), "compress"
    OUTPUT_TOOLTIPS = ("The pictures as they come back from the codec, at the same size.",)

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "image": socket("IMAGE", "The pictures to compress."),
                "codec": choice(
                    ["jpeg", "webp", "avif", SIMULATED],
                    "jpeg",
                    "The codec. simulated-jpeg is the tensor version of Real-ESRGAN's training.",
                ),
                "quality": integer(50, 1, 100, "The encoder's quality: lower loses more. simulated-jpeg ends at 99."),
                "chroma": choice(
                    [*get_args(ChromaSampling)], "4:2:0", "Colour at half (4:2:0) or full (4:4:4) resolution; JPEG and AVIF.", advanced=True
                ),
            }
        }

    def compress(self, image: Tensor, codec: str, quality: int, chroma: ChromaSampling) -> tuple[Tensor]:
        if codec == SIMULATED:
            return (_apply(image, lambda _: steps.SimulatedJpeg(quality=min(quality, 99))),)
        step = steps.Compress.model_validate({"codec": codec, "quality": quality, "chroma": chroma})
        return (_apply(image, lambda _: step),)


def _apply(image: Tensor, step: Callable[[int], steps.Step]) -> Tensor:
    """Picture i of an IMAGE through step(i)."""
    rows = [step(index).apply(picture) for index, picture in enumerate(_planes(image).split(1))]
    return _image(torch.cat(rows).clamp(0, 1))


def _planes(image: Tensor) -> Tensor:
    """IMAGE [B, H, W, 3 or more] -> [B, 3, H, W]; further channels are left out."""
    return image[..., :3].permute(0, 3, 1, 2)


def _image(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).contiguous()


NODES = (KintsugiDegrade, KintsugiDegradeBlur, KintsugiDegradeResize, KintsugiDegradeNoise, KintsugiDegradeCompress)
