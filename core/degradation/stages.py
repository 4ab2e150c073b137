"""What a preset is made of: ranges and probabilities, as data. sampling.py draws steps from them."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .resampling import ResizeMode
from .steps import KernelFamily, Share

Key = TypeVar("Key", bound=str)


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"a range goes from low to high, found {span[0]} to {span[1]}")
    return span


def _some_weight(weights: dict[Key, float]) -> dict[Key, float]:
    if sum(weights.values()) <= 0:
        raise ValueError("at least one weight must be above 0")
    return weights


Weight = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
PositiveRange = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
SizeRange = Annotated[tuple[Annotated[int, Field(ge=1, le=101)], Annotated[int, Field(ge=1, le=101)]], AfterValidator(_ordered)]
ModeWeights = Annotated[dict[ResizeMode, Weight], AfterValidator(_some_weight)]

THREE_MODES: dict[ResizeMode, float] = {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}


class Data(BaseModel):
    """Checked and unchangeable entries of a preset; unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SharpenStage(Data):
    """Unsharp mask; threshold in 8-bit units."""

    kind: Literal["sharpen"] = "sharpen"
    weight: float = 0.5
    radius: int = 50
    threshold: float = 10.0


class BlurStage(Data):
    """A kernel of one family, or with `sinc_probability` a sinc kernel. Sizes are odd pixels, sigmas pixels, angles radians."""

    kind: Literal["blur"] = "blur"
    probability: Share = 1.0
    families: Annotated[dict[KernelFamily, Weight], AfterValidator(_some_weight)]
    sizes: SizeRange = (7, 21)
    sigma: PositiveRange
    rotation: Range = (-math.pi, math.pi)
    beta_generalised: PositiveRange = (0.5, 4.0)
    beta_plateau: PositiveRange = (1.0, 2.0)
    sinc_probability: Share = 0.1
    sinc_cutoff_below_13: PositiveRange = (math.pi / 3, math.pi)
    sinc_cutoff_from_13: PositiveRange = (math.pi / 5, math.pi)


class SincStage(Data):
    """Ringing by a sinc filter, with some probability: sizes in pixels, cutoff in radians per pixel."""

    kind: Literal["sinc"] = "sinc"
    probability: Share = 0.8
    sizes: SizeRange = (7, 21)
    cutoff: PositiveRange = (math.pi / 3, math.pi)


class ResizeStage(Data):
    """Up to `span[1]`, down to `span[0]` or left alone, relative to the size it finds or to the low-quality size."""

    kind: Literal["resize"] = "resize"
    up: Weight
    down: Weight
    keep: Weight
    span: PositiveRange
    relative_to: Literal["current", "target"] = "current"
    modes: ModeWeights = Field(default_factory=lambda: dict(THREE_MODES))

    @model_validator(mode="after")
    def _some_direction(self) -> ResizeStage:
        if self.up + self.down + self.keep <= 0:
            raise ValueError("one of up, down and keep must be above 0")
        return self


class DownscaleStage(Data):
    """Sides divided by a factor drawn from a range."""

    kind: Literal["downscale"] = "downscale"
    factor: Annotated[tuple[Annotated[float, Field(ge=1)], float], AfterValidator(_ordered)]
    modes: ModeWeights


class FitStage(Data):
    """To the low-quality size: the picture's sides divided by `scale`."""

    kind: Literal["fit"] = "fit"
    modes: ModeWeights = Field(default_factory=lambda: dict(THREE_MODES))


class NoiseStage(Data):
    """Gaussian (sigma in 8-bit units) or else Poisson noise."""

    kind: Literal["noise"] = "noise"
    probability: Share = 1.0
    gaussian_probability: Share = 0.5
    sigma: Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=255)]], AfterValidator(_ordered)]
    poisson_scale: Annotated[tuple[Annotated[float, Field(ge=0)], float], AfterValidator(_ordered)] = (0.05, 3.0)
    grey_probability: Share = 0.4


class CodecChoice(Data):
    """How often a codec is drawn, and its range of quality 1..100."""

    weight: Weight = 0.0
    quality: Annotated[tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(le=100)]], AfterValidator(_ordered)] = (30.0, 95.0)


class CompressStage(Data):
    """One of the codecs by weight; `full_chroma` is the probability of 4:4:4 instead of 4:2:0 (JPEG and AVIF)."""

    kind: Literal["compress"] = "compress"
    probability: Share = 1.0
    jpeg: CodecChoice = CodecChoice(weight=1.0)
    webp: CodecChoice = CodecChoice()
    avif: CodecChoice = CodecChoice()
    simulated: CodecChoice = CodecChoice()
    full_chroma: Share = 0.0

    @model_validator(mode="after")
    def _some_codec(self) -> CompressStage:
        if self.jpeg.weight + self.webp.weight + self.avif.weight + self.simulated.weight <= 0:
            raise ValueError("at least one codec needs a weight above 0")
        if self.simulated.quality[1] >= 100:
            raise ValueError("the simulated JPEG has no quality 100: its tables become zero")
        return self


class SaltAndPepperStage(Data):
    """Black and white pixels; amount: share of all pixels."""

    kind: Literal["salt-and-pepper"] = "salt-and-pepper"
    amount: Annotated[tuple[Share, Share], AfterValidator(_ordered)] = (0.02, 0.1)


class RainStage(Data):
    """One layer of streaks: lengths and widths in pixels, tilt in radians from the vertical."""

    kind: Literal["rain"] = "rain"
    density: Annotated[tuple[Share, Share], AfterValidator(_ordered)]
    length: PositiveRange
    width: PositiveRange
    tilt: Range = (-0.5, 0.5)
    brightness: Annotated[tuple[Share, Share], AfterValidator(_ordered)]


class LowLightStage(Data):
    """Darkening gain * x^gamma."""

    kind: Literal["low-light"] = "low-light"
    gamma: PositiveRange = (1.5, 3.0)
    gain: Annotated[tuple[Share, Share], AfterValidator(_ordered)] = (0.3, 0.8)


class MaskStage(Data):
    """Irregular strokes. `width` is in pixels of a 512x512 picture and grows with the diagonal; angles in radians."""

    kind: Literal["mask"] = "mask"
    strokes: SizeRange = (1, 3)
    vertices: SizeRange = (8, 28)
    width: PositiveRange = (12.0, 80.0)
    turn: float = 2 * math.pi / 5
    turn_spread: Annotated[float, Field(ge=0)] = 2 * math.pi / 15
    mean_radius: Annotated[float, Field(gt=0)] = 1 / 8


class Sequence(Data):
    """Stages one after the other, each under the name that overrides use."""

    kind: Literal["sequence"] = "sequence"
    stages: dict[str, Stage]


class AnyPlace(Data):
    """The first stage runs at a random place before, between or after the others, which keep their order."""

    kind: Literal["any-place"] = "any-place"
    stages: dict[str, Stage]


class OneOf(Data):
    """One branch by weight."""

    kind: Literal["one-of"] = "one-of"
    weights: Annotated[dict[str, Weight], AfterValidator(_some_weight)]
    stages: dict[str, Stage]

    @model_validator(mode="after")
    def _weights_name_branches(self) -> OneOf:
        if strangers := set(self.weights) - set(self.stages):
            raise ValueError(f"no branch is named {sorted(strangers)}; the branches are {list(self.stages)}")
        return self


Stage = Annotated[
    SharpenStage
    | BlurStage
    | SincStage
    | ResizeStage
    | DownscaleStage
    | FitStage
    | NoiseStage
    | CompressStage
    | SaltAndPepperStage
    | RainStage
    | LowLightStage
    | MaskStage
    | Sequence
    | AnyPlace
    | OneOf,
    Field(discriminator="kind"),
]


class Preset(Data):
    """A named degradation model. `last_resize`: how a result of another size comes to the size that was asked for."""

    name: str
    description: str
    last_resize: ResizeMode = "bicubic-antialiased"
    stages: dict[str, Stage]


for _model in (Sequence, AnyPlace, OneOf, Preset):
    _model.model_rebuild()
