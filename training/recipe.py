"""A recipe: everything that decides what a training run makes, as a YAML file whose unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


class Strict(BaseModel):
    """Base of every table in a recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Strict):
    """Where pictures come from and how they are spoilt.

    source: `procedural` (drawn by this repository) or `folder`. pictures, picture_size, picture_seed: the procedural
    bank. crop: side in pixels. degradation: preset name of core/degradation, or null for clean pictures only.
    """

    source: Literal["procedural", "folder"] = "procedural"
    folder: Path | None = None
    pictures: int = Field(2000, ge=1)
    picture_size: int = Field(320, ge=64)
    picture_seed: int = 1
    crop: int = Field(96, ge=16)
    degradation: str | None = None
    workers: int = Field(1, ge=0)


class Phase(Strict):
    """Weights of the losses up to (not including) step `until`; a loss that is absent is not computed."""

    until: int = Field(ge=1)
    weights: dict[str, float]


class Recipe(Strict):
    """One training run. Steps count optimizer updates, each over batch * accumulate pictures."""

    stage: str
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    accumulate: int = Field(1, ge=1)
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    learning_rate: float = Field(gt=0)
    warmup: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1)
    checkpoint_every: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    phases: list[Phase] = Field(min_length=1)
    data: DataSettings
    settings: dict[str, Any] = Field(default_factory=dict)

    def loss_weights(self, step: int) -> dict[str, float]:
        """Weights in force at this step; the last phase holds until the end."""
        return next((phase.weights for phase in self.phases if step < phase.until), self.phases[-1].weights)


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
        _set(content, key.split("."), yaml.safe_load(value))
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise RecipeError(faults, where=str(path)) from error


def _set(content: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        content = content.setdefault(key, {})
    content[keys[-1]] = value
