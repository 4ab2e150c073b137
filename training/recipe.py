"""A recipe: everything that decides what a training run makes, as a YAML file whose unknown keys are errors."""

from __future__ import annotations

import math
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import RecipeError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RECIPES = Path(__file__).parent / "recipes"

# What YAML makes of a plain `no`.
READ_NO = BeforeValidator(lambda value: "no" if value is False else value)


class Strict(BaseModel):
    """Base of every table in a recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Strict):
    """Where pictures come from: `procedural` (drawn by this repository), `folder` (the pictures below one), `shards` (the tar files below
    one) or `paired` (high/ and low/ in one, with equal names).

    folder: below data.root. first: take so many of them, in the order of their names. pictures, picture_size, picture_seed: the
    procedural ones.
    """

    source: Literal["procedural", "folder", "shards", "paired"] = "procedural"
    folder: Path | None = None
    first: int | None = Field(None, ge=1)
    pictures: int = Field(2000, ge=1)
    picture_size: int = Field(320, ge=64)
    picture_seed: int = 1


class MixedSource(SourceSettings):
    """One source of several. weight: how often a picture is drawn from it, among the weights of all."""

    weight: float = Field(gt=0)


class ResizeSettings(Strict):
    """What a picture goes through before a crop is cut. side: pixels that its short side gets, or a range to draw them from. squeeze:
    both sides get them, whatever its shape."""

    side: Annotated[int, Field(ge=16)] | tuple[Annotated[int, Field(ge=16)], int]
    filter: Literal["bilinear", "bicubic", "box"] = "bilinear"
    squeeze: bool = False


class DataSettings(SourceSettings):
    """The pictures, how they are cut and how they are spoilt.

    root: what folders are relative to. mix: several sources, in place of one. resize: before a crop is cut; crop: its side in pixels.
    flip, turn: at random, left to right and by quarters. degradation: a preset of core/degradation, or several with their weights, or
    null for clean pictures and stored pairs; scale: how much smaller a preset makes a picture before it comes back to its size.
    unspoilt: share of the crops that stay as they are. stored_pairs: take what shards store beside a picture in place of degrading
    it. bank: how many crops are made once, encoded by the stage's VAE and kept on disk, to draw batches from; null makes every batch
    anew. workers: processes that make batches ahead.
    """

    root: Path = Path()
    mix: list[MixedSource] = []
    resize: ResizeSettings | None = None
    crop: int = Field(96, ge=16)
    flip: bool = True
    turn: bool = True
    degradation: str | dict[str, Annotated[float, Field(gt=0)]] | None = None
    scale: int = Field(1, ge=1)
    unspoilt: float = Field(0.0, ge=0, le=1)
    stored_pairs: bool = False
    bank: int | None = Field(None, ge=1)
    workers: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _require_one_place(self) -> DataSettings:
        if self.mix and self.model_fields_set & SourceSettings.model_fields.keys():
            raise ValueError("mix names the sources; give no source, folder or numbers of one beside it")
        return self


class OptimizerSettings(Strict):
    """AdamW for the network of one turn. schedule: what follows a linear warm-up of `warmup` steps, half a cosine down to final_rate of
    the learning rate, or nothing. clip: largest norm of the gradient. every: the turn is taken in every so-manieth step."""

    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    schedule: Literal["cosine", "constant"] = "constant"
    warmup: int = Field(0, ge=0)
    final_rate: float = Field(0.01, ge=0, le=1)
    every: int = Field(1, ge=1)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, steps - self.warmup)
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Phase(Strict):
    """Weights of the losses up to (not including) step `until`, each a number or a ramp [from, to] over the phase. A loss that is
    absent is not computed, and a turn without any is not taken."""

    until: int = Field(ge=1)
    weights: dict[str, float | tuple[float, float]]


class Recipe(Strict):
    """One training run. Steps count optimizer updates, each over batch * accumulate pictures in every process.

    processes: how many the figures were chosen for; a run takes as many as it is launched with. ema: decay of the averaged weights
    that are shown and exported, 0 for the last ones. frozen_precision: of networks that are not trained. checkpointing: compute
    activations anew in the backward pass, for their memory. sharding: what several processes share of trained networks, see learners.
    """

    stage: str
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    accumulate: int = Field(1, ge=1)
    processes: int = Field(1, ge=1)
    seed: int = 0
    precision: Annotated[Literal["no", "bf16"], READ_NO] = "bf16"
    frozen_precision: Annotated[Literal["no", "bf16", "fp16"], READ_NO] = "no"
    checkpointing: bool = False
    sharding: Literal["none", "fsdp", "zero2"] = "none"
    optimizers: dict[str, OptimizerSettings] = Field(min_length=1)
    ema: float = Field(0.999, ge=0, lt=1)
    checkpoint_every: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    phases: list[Phase] = Field(min_length=1)
    data: DataSettings
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_order(self) -> Recipe:
        if any(later.until <= phase.until for phase, later in pairwise(self.phases)):
            raise ValueError("phases end one after the other; an `until` is not later than the one before")
        return self

    def loss_weights(self, step: int) -> dict[str, float]:
        """Weights in force at this step; the last phase holds until the end."""
        begin = 0
        for phase in self.phases:
            if step < phase.until or phase is self.phases[-1]:
                share = min(1.0, (step - begin) / max(1, phase.until - 1 - begin))
                return {name: _ramp(weight, share) for name, weight in phase.weights.items()}
            begin = phase.until
        raise AssertionError("a recipe has a phase")


def _ramp(weight: float | tuple[float, float], share: float) -> float:
    return weight if isinstance(weight, float) else weight[0] + share * (weight[1] - weight[0])


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: dict[str, str] | None = None) -> Recipe:
    """A shipped recipe by name or a file by path; overrides are `data.crop=64`-like entries with YAML values."""
    path = RECIPES / f"{name_or_path}.yaml" if name_or_path in recipe_names() else Path(name_or_path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RecipeError(
            f"there is no recipe {name_or_path!r}.", way_out=f"Known: {', '.join(recipe_names())}; or give a file."
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise RecipeError("a recipe is a table of keys and values.", where=str(path))
    for key, value in (overrides or {}).items():
        _overridden(content, key, value)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(faults_of(error), where=str(path)) from error


def faults_of(error: ValidationError) -> str:
    """Every fault with its place, in one line."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {_words(fault)}".removeprefix(": ") for fault in error.errors())


def _words(fault: ErrorDetails) -> str:
    if fault["type"] != "extra_forbidden":
        return fault["msg"].removeprefix("Value error, ")
    close = get_close_matches(str(fault["loc"][-1]), _keys_of(Strict), n=1)
    return f"there is no such key; did you mean {close[0]}?" if close else "there is no such key"


def _keys_of(model: type[BaseModel]) -> set[str]:
    """Keys of the tables that are known by now."""
    return set(model.model_fields).union(*(_keys_of(derived) for derived in model.__subclasses__()))


def _overridden(content: dict[str, Any], key: str, text: str) -> None:
    """Set an entry `data.crop` to a YAML value."""
    *tables, last = key.split(".")
    for name in tables:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise RecipeError(f"{name} is no table.", where=key, way_out="Set it as a whole.")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text!r} is not valid YAML.", where=key) from error
