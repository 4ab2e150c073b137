"""From a preset's ranges to the steps of one picture, every choice from one generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from . import stages as data
from . import steps
from .codecs import Codec

Key = TypeVar("Key", bound=str)
KERNEL_LIMIT_OF_SINC = 13


class Dice:
    """Plain random numbers from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, span: tuple[float, float]) -> float:
        """A number of the span, evenly."""
        return span[0] + (span[1] - span[0]) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform((0.0, 1.0)) < probability

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def normal(self, mean: float, deviation: float) -> float:
        """A number of the normal distribution."""
        return mean + deviation * float(torch.randn((), generator=self._generator, dtype=torch.float64))

    def pick(self, weights: Mapping[Key, float]) -> Key:
        """One of the names, each with a probability in proportion to its weight."""
        threshold = self.uniform((0.0, sum(weights.values())))
        for name, weight in weights.items():
            threshold -= weight
            if threshold < 0:
                return name
        return max(weights, key=lambda name: weights[name])

    def odd(self, span: tuple[int, int]) -> int:
        """An odd number of the range, which is widened by one where an end is even."""
        return 2 * self.integer(span[0] // 2, span[1] // 2) + 1

    def seed(self) -> int:
        """A seed for noise that a step draws later."""
        return self.integer(0, 2**62)


@dataclass
class Draft:
    """One picture's steps so far and its size at this point; target is the low-quality size."""

    dice: Dice
    height: int
    width: int
    target: tuple[int, int]
    recorded: list[steps.AnyStep]

    def add(self, step: steps.AnyStep) -> None:
        """Note the step as the next one."""
        self.recorded.append(step)

    def resize(self, height: float, width: float, mode: Any) -> None:
        """Sides are cut to whole pixels, as interpolation by a scale factor does; no step when nothing changes."""
        size = (max(1, int(height)), max(1, int(width)))
        if size != (self.height, self.width):
            self.add(steps.Resize(height=size[0], width=size[1], mode=mode))
            self.height, self.width = size


def draw_steps(
    preset: data.Preset, height: int, width: int, scale: int, generator: torch.Generator, restore_size: bool
) -> list[steps.AnyStep]:
    """The steps from a picture [height, width] to its low-quality version, at [height // scale, width // scale] or as large as before."""
    target = (max(1, height // scale), max(1, width // scale))
    draft = Draft(Dice(generator), height, width, target, [])
    for stage in preset.stages.values():
        _draw(stage, draft)
    final = (height, width) if restore_size else target
    if final != (draft.height, draft.width):
        draft.add(steps.Quantise())
        draft.resize(*final, preset.last_resize)
    draft.add(steps.Quantise())
    return draft.recorded


def _draw(stage: data.Stage, draft: Draft) -> None:
    DRAWERS[type(stage)](stage, draft)


def _sharpen(stage: data.SharpenStage, draft: Draft) -> None:
    draft.add(steps.Sharpen(weight=stage.weight, radius=stage.radius, threshold=stage.threshold))


def _blur(stage: data.BlurStage, draft: Draft) -> None:
    dice = draft.dice
    if not dice.chance(stage.probability):
        return
    size = dice.odd(stage.sizes)
    if dice.chance(stage.sinc_probability):
        small = size < KERNEL_LIMIT_OF_SINC
        draft.add(steps.Sinc(size=size, cutoff=dice.uniform(stage.sinc_cutoff_below_13 if small else stage.sinc_cutoff_from_13)))
        return
    family = dice.pick(stage.families)
    numbers: dict[str, Any] = {"sigma_x": dice.uniform(stage.sigma)}
    if family.endswith("aniso"):
        numbers |= {"sigma_y": dice.uniform(stage.sigma), "rotation": dice.uniform(stage.rotation)}
    if family.startswith("generalised"):
        numbers["beta"] = _beta(stage.beta_generalised, dice)
    elif family.startswith("plateau"):
        numbers["beta"] = _beta(stage.beta_plateau, dice)
    draft.add(steps.Blur(family=family, size=size, **numbers))


def _beta(span: tuple[float, float], dice: Dice) -> float:
    """Half of the draws lie below 1 and half above, whatever the lengths of the two parts of the range."""
    low, high = span
    return dice.uniform((low, max(low, min(1.0, high)))) if dice.chance(0.5) else dice.uniform((min(high, max(1.0, low)), high))


def _sinc(stage: data.SincStage, draft: Draft) -> None:
    if draft.dice.chance(stage.probability):
        draft.add(steps.Sinc(size=draft.dice.odd(stage.sizes), cutoff=draft.dice.uniform(stage.cutoff)))


def _resize(stage: data.ResizeStage, draft: Draft) -> None:
    dice, (low, high) = draft.dice, stage.span
    direction = dice.pick({"up": stage.up, "down": stage.down, "keep": stage.keep})
    spans = {"up": (min(1.0, high), high), "down": (low, max(1.0, low)), "keep": (1.0, 1.0)}
    factor = dice.uniform(spans[direction])
    height, width = (draft.height, draft.width) if stage.relative_to == "current" else draft.target
    draft.resize(height * factor, width * factor, dice.pick(stage.modes))


def _downscale(stage: data.DownscaleStage, draft: Draft) -> None:
    factor = draft.dice.uniform(stage.factor)
    draft.resize(round(draft.height / factor), round(draft.width / factor), draft.dice.pick(stage.modes))


def _fit(stage: data.FitStage, draft: Draft) -> None:
    draft.resize(*draft.target, draft.dice.pick(stage.modes))


def _noise(stage: data.NoiseStage, draft: Draft) -> None:
    dice = draft.dice
    if not dice.chance(stage.probability):
        return
    gaussian, grey = dice.chance(stage.gaussian_probability), dice.chance(stage.grey_probability)
    if gaussian:
        draft.add(steps.GaussianNoise(sigma=dice.uniform(stage.sigma), grey=grey, seed=dice.seed()))
    else:
        draft.add(steps.PoissonNoise(scale=dice.uniform(stage.poisson_scale), grey=grey, seed=dice.seed()))


def _compress(stage: data.CompressStage, draft: Draft) -> None:
    dice = draft.dice
    if not dice.chance(stage.probability):
        return
    choices: dict[Codec | Literal["simulated"], data.CodecChoice] = {
        "jpeg": stage.jpeg,
        "webp": stage.webp,
        "avif": stage.avif,
        "simulated": stage.simulated,
    }
    codec = dice.pick({name: choice.weight for name, choice in choices.items()})
    quality = dice.uniform(choices[codec].quality)
    if codec == "simulated":
        draft.add(steps.SimulatedJpeg(quality=quality))
        return
    full_chroma = dice.chance(stage.full_chroma) and codec != "webp"
    draft.add(steps.Compress(codec=codec, quality=round(quality), chroma="4:4:4" if full_chroma else "4:2:0"))


def _salt_and_pepper(stage: data.SaltAndPepperStage, draft: Draft) -> None:
    draft.add(steps.SaltAndPepper(amount=draft.dice.uniform(stage.amount), seed=draft.dice.seed()))


def _rain(stage: data.RainStage, draft: Draft) -> None:
    dice = draft.dice
    draft.add(
        steps.Rain(
            density=dice.uniform(stage.density),
            length=dice.uniform(stage.length),
            width=dice.uniform(stage.width),
            angle=dice.uniform(stage.tilt),
            brightness=dice.uniform(stage.brightness),
            seed=dice.seed(),
        )
    )


def _low_light(stage: data.LowLightStage, draft: Draft) -> None:
    draft.add(steps.LowLight(gamma=draft.dice.uniform(stage.gamma), gain=draft.dice.uniform(stage.gain)))


def _mask(stage: data.MaskStage, draft: Draft) -> None:
    dice, diagonal = draft.dice, math.hypot(draft.height, draft.width)
    polylines = [tuple(_polyline(stage, draft, diagonal * stage.mean_radius)) for _ in range(dice.integer(*stage.strokes))]
    widths = [dice.uniform(stage.width) * diagonal / math.hypot(512, 512) for _ in polylines]
    draft.add(steps.Mask(polylines=tuple(polylines), widths=tuple(widths)))


def _polyline(stage: data.MaskStage, draft: Draft, mean_radius: float) -> Iterator[tuple[float, float]]:
    """Vertices (x, y) inside the picture. The direction alternates, so that the stroke folds back on itself."""
    dice = draft.dice
    x, y = dice.uniform((0, draft.width - 1)), dice.uniform((0, draft.height - 1))
    turns = (stage.turn - dice.uniform((0, stage.turn_spread)), stage.turn + dice.uniform((0, stage.turn_spread)))
    yield x, y
    for index in range(dice.integer(*stage.vertices) - 1):
        angle = dice.uniform(turns) if index % 2 else 2 * math.pi - dice.uniform(turns)
        radius = min(max(dice.normal(mean_radius, mean_radius / 2), 0.0), 2 * mean_radius)
        x = min(max(x + radius * math.cos(angle), 0.0), draft.width - 1.0)
        y = min(max(y + radius * math.sin(angle), 0.0), draft.height - 1.0)
        yield x, y


def _sequence(stage: data.Sequence, draft: Draft) -> None:
    for child in stage.stages.values():
        _draw(child, draft)


def _any_place(stage: data.AnyPlace, draft: Draft) -> None:
    moving, *others = stage.stages.values()
    others.insert(draft.dice.integer(0, len(others)), moving)
    for child in others:
        _draw(child, draft)


def _one_of(stage: data.OneOf, draft: Draft) -> None:
    _draw(stage.stages[draft.dice.pick(stage.weights)], draft)


DRAWERS: dict[type, Callable[[Any, Draft], None]] = {
    data.SharpenStage: _sharpen,
    data.BlurStage: _blur,
    data.SincStage: _sinc,
    data.ResizeStage: _resize,
    data.DownscaleStage: _downscale,
    data.FitStage: _fit,
    data.NoiseStage: _noise,
    data.CompressStage: _compress,
    data.SaltAndPepperStage: _salt_and_pepper,
    data.RainStage: _rain,
    data.LowLightStage: _low_light,
    data.MaskStage: _mask,
    data.Sequence: _sequence,
    data.AnyPlace: _any_place,
    data.OneOf: _one_of,
}
