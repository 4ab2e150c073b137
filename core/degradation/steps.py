"""The recorded form of a degradation: a list of steps, each with every number it needs, so that it can be replayed.

A step applies to one picture [1, 3, H, W] in 0..1. It holds its own noise seed and is plain JSON.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from . import codecs, filters, kernels, noise, resampling, scenes, simulated_jpeg

KernelFamily = Literal["iso", "aniso", "generalised-iso", "generalised-aniso", "plateau-iso", "plateau-aniso"]
KERNEL_FAMILIES: tuple[KernelFamily, ...] = ("iso", "aniso", "generalised-iso", "generalised-aniso", "plateau-iso", "plateau-aniso")

Share = Annotated[float, Field(ge=0, le=1)]
OddSize = Annotated[int, Field(ge=1, le=101), AfterValidator(lambda size: size + 1 - size % 2)]
Pixels = Annotated[int, Field(ge=1, le=65_536)]
NoiseSeed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, le=1000)]


class Step(BaseModel, ABC):
    """One operation with its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abstractmethod
    def apply(self, picture: Tensor) -> Tensor:
        """The picture [1, 3, H, W] after this step."""


class Sharpen(Step):
    """Unsharp mask: radius in pixels, threshold in grey levels of 255."""

    operation: Literal["sharpen"] = "sharpen"
    weight: float = 0.5
    radius: Annotated[int, Field(ge=1, le=200)] = 50
    threshold: float = 10.0

    def apply(self, picture: Tensor) -> Tensor:
        return filters.sharpen(picture, self.weight, self.radius, self.threshold)


class Blur(Step):
    """A kernel of the Gaussian, generalised or plateau family; sigmas in pixels, rotation in radians."""

    operation: Literal["blur"] = "blur"
    family: KernelFamily
    size: OddSize
    sigma_x: Positive
    sigma_y: Positive | None = None
    rotation: float = 0.0
    beta: Positive = 1.0

    def kernel(self) -> Tensor:
        """[size, size] float64, sum 1."""
        shape, _, spread = self.family.rpartition("-")
        sigma_y = self.sigma_y if spread == "aniso" else None
        if shape == "generalised":
            return kernels.generalised_kernel(self.size, self.beta, self.sigma_x, sigma_y, self.rotation)
        if shape == "plateau":
            return kernels.plateau_kernel(self.size, self.beta, self.sigma_x, sigma_y, self.rotation)
        return kernels.gaussian_kernel(self.size, self.sigma_x, sigma_y, self.rotation)

    def apply(self, picture: Tensor) -> Tensor:
        if self.family == "iso":
            return filters.separable_filter(picture, kernels.gaussian_profile(self.size, self.sigma_x)[None])
        return filters.filter_pictures(picture, self.kernel()[None])


class Sinc(Step):
    """Ringing low-pass filter; cutoff in radians per pixel."""

    operation: Literal["sinc"] = "sinc"
    size: OddSize
    cutoff: Annotated[float, Field(gt=0, le=math.pi)]

    def apply(self, picture: Tensor) -> Tensor:
        return filters.filter_pictures(picture, kernels.sinc_kernel(self.size, self.cutoff)[None])


class Resize(Step):
    """To a size in pixels, by one of resampling.RESIZE_MODES."""

    operation: Literal["resize"] = "resize"
    height: Pixels
    width: Pixels
    mode: resampling.ResizeMode

    def apply(self, picture: Tensor) -> Tensor:
        return resampling.resize_pictures(picture, self.height, self.width, self.mode)


class GaussianNoise(Step):
    """sigma in 8-bit units; grey noise is one field for the three channels."""

    operation: Literal["gaussian-noise"] = "gaussian-noise"
    sigma: Annotated[float, Field(ge=0, le=255)]
    grey: bool
    seed: NoiseSeed

    def apply(self, picture: Tensor) -> Tensor:
        shape = (1, 1 if self.grey else 3, *picture.shape[-2:])
        draw = torch.randn(shape, generator=_generator(self.seed)).to(picture)
        return (picture + noise.gaussian_noise(draw, torch.tensor([self.sigma]))).clamp(0, 1)


class PoissonNoise(Step):
    """Shot noise times a scale, one for all channels where grey."""

    operation: Literal["poisson-noise"] = "poisson-noise"
    scale: Annotated[float, Field(ge=0, le=100)]
    grey: bool
    seed: NoiseSeed

    def apply(self, picture: Tensor) -> Tensor:
        added = noise.poisson_noise(picture, [_generator(self.seed)], torch.tensor([self.scale]), self.grey)
        return (picture + added).clamp(0, 1)


class SaltAndPepper(Step):
    """Black and white pixels; amount: share of all pixels."""

    operation: Literal["salt-and-pepper"] = "salt-and-pepper"
    amount: Share
    seed: NoiseSeed

    def apply(self, picture: Tensor) -> Tensor:
        return noise.salt_and_pepper(picture, _uniform(picture, self.seed), torch.tensor([self.amount]))


class Compress(Step):
    """A real encoder at quality 1..100."""

    operation: Literal["compress"] = "compress"
    codec: codecs.Codec
    quality: Annotated[int, Field(ge=1, le=100)]
    chroma: codecs.ChromaSampling = "4:2:0"

    def apply(self, picture: Tensor) -> Tensor:
        return codecs.compress(picture[0], self.codec, self.quality, self.chroma)[None]


class SimulatedJpeg(Step):
    """The JPEG of the published pipelines, quality 1..100."""

    operation: Literal["simulated-jpeg"] = "simulated-jpeg"
    quality: Annotated[float, Field(ge=1, lt=100)]

    def apply(self, picture: Tensor) -> Tensor:
        return simulated_jpeg.simulated_jpeg(picture.clamp(0, 1), torch.tensor([self.quality]))


class Rain(Step):
    """Streaks of that length and width in pixels, falling at an angle (radians from the vertical)."""

    operation: Literal["rain"] = "rain"
    density: Share
    length: Annotated[float, Field(gt=0, le=200)]
    angle: float
    width: Annotated[float, Field(gt=0, le=20)]
    brightness: Share
    seed: NoiseSeed

    def apply(self, picture: Tensor) -> Tensor:
        draw = _uniform(picture, self.seed)
        return scenes.rain_streaks(picture, draw, self.density, self.length, self.angle, self.width, self.brightness)


class LowLight(Step):
    """Darkening gain * x^gamma."""

    operation: Literal["low-light"] = "low-light"
    gamma: Annotated[float, Field(gt=0, le=20)]
    gain: Share

    def apply(self, picture: Tensor) -> Tensor:
        return scenes.low_light(picture, self.gamma, self.gain)


class Mask(Step):
    """White strokes through vertices (x, y); widths and vertices in pixels."""

    operation: Literal["mask"] = "mask"
    polylines: Annotated[tuple[tuple[scenes.Point, ...], ...], Field(max_length=100)]
    widths: Annotated[tuple[Positive, ...], Field(max_length=100)]

    def mask(self, height: int, width: int) -> Tensor:
        """1 under the strokes, [1, 1, H, W]."""
        return scenes.polyline_mask(height, width, self.polylines, self.widths)

    def apply(self, picture: Tensor) -> Tensor:
        return scenes.paint_white(picture, self.mask(*picture.shape[-2:]))


class Quantise(Step):
    """Values as a file of 8 bits holds them."""

    operation: Literal["quantise"] = "quantise"
    levels: ClassVar[int] = 255

    def apply(self, picture: Tensor) -> Tensor:
        return (picture.clamp(0, 1) * self.levels).round() / self.levels


AnyStep = Annotated[
    Sharpen
    | Blur
    | Sinc
    | Resize
    | GaussianNoise
    | PoissonNoise
    | SaltAndPepper
    | Compress
    | SimulatedJpeg
    | Rain
    | LowLight
    | Mask
    | Quantise,
    Field(discriminator="operation"),
]


class Recipe(BaseModel):
    """Everything that happened to one picture of [height, width]: what `degrade` returns as JSON and `replay` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    scale: int
    seed: int
    height: int
    width: int
    steps: tuple[AnyStep, ...]

    def apply(self, picture: Tensor) -> Tensor:
        """The picture [1, 3, H, W] in 0..1 after every step."""
        for step in self.steps:
            picture = step.apply(picture)
        return picture


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _uniform(picture: Tensor, seed: int) -> Tensor:
    """Uniform draw [1, 1, H, W] in 0..1, on the picture's device."""
    return torch.rand((1, 1, *picture.shape[-2:]), generator=_generator(seed)).to(picture)
