"""Degrade pictures by a preset, and do exactly the same again from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..errors import BadValueError
from ..randomness import picture_generators
from ..runtime import current_host, require_finite
from .overrides import first_fault
from .presets import find_preset
from .sampling import draw_steps
from .stages import Preset
from .steps import Recipe, Sharpen

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Degraded:
    """low_quality [B, 3, h, w] in 0..1 at 8-bit levels; high_quality [B, 3, H, W] is what it came from (sharpened
    where the preset sharpens, else the input itself); parameters: one JSON-able dictionary per picture."""

    low_quality: Tensor
    high_quality: Tensor
    parameters: list[Parameters]


def degrade(
    pictures: Tensor,
    preset: str | Preset,
    scale: int = 4,
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    restore_size: bool = False,
) -> Degraded:
    """Degraded versions of pictures [B, 3, H, W] in 0..1, on their device; picture i depends on seed + i alone.

    The result has H // scale x W // scale pixels, or the input's size with `restore_size` (resized as the preset says).
    Raises BadValueError for an unknown preset, override or scale, KintsugiError for values that are not finite.
    """
    _require_pictures(pictures)
    if scale < 1:
        raise BadValueError(f"The scale is {scale}, expected 1 or more.", way_out="Scale 4 makes a picture four times smaller.")
    model = find_preset(preset, dict(overrides or {})) if isinstance(preset, str) else preset
    height, width = pictures.shape[-2:]
    recipes = [
        Recipe(
            preset=model.name,
            scale=scale,
            seed=generator.initial_seed(),
            height=height,
            width=width,
            steps=tuple(draw_steps(model, height, width, scale, generator, restore_size)),
        )
        for generator in picture_generators(seed, pictures.shape[0])
    ]
    return Degraded(apply_recipes(pictures, recipes), _sharpened(pictures, recipes), [recipe.model_dump(mode="json") for recipe in recipes])


def replay(pictures: Tensor, parameters: Sequence[Mapping[str, Any]]) -> Tensor:
    """The same low-quality pictures, bit for bit, from the pictures [B, 3, H, W] and what `degrade` recorded for them."""
    _require_pictures(pictures)
    recipes = [read_recipe(entry, f"picture {index}") for index, entry in enumerate(parameters)]
    if len(recipes) != pictures.shape[0]:
        raise BadValueError(
            f"There are {pictures.shape[0]} pictures and parameters for {len(recipes)}.", way_out="Give one entry per picture."
        )
    for recipe in recipes:
        if (recipe.height, recipe.width) != tuple(pictures.shape[-2:]):
            raise BadValueError(
                f"The parameters are for {recipe.width}x{recipe.height} pixels, the picture has {pictures.shape[-1]}x{pictures.shape[-2]}.",
                way_out="Replay on the picture that the parameters came from.",
            )
    return apply_recipes(pictures, recipes)


def read_recipe(parameters: Mapping[str, Any], where: str) -> Recipe:
    """Checked parameters of one picture; raises BadValueError naming the faulty entry."""
    try:
        return Recipe.model_validate(parameters)
    except ValidationError as error:
        raise BadValueError(first_fault(error), where=where, way_out="Use parameters as a degradation wrote them.") from None


def apply_recipes(pictures: Tensor, recipes: Sequence[Recipe]) -> Tensor:
    """Picture i through recipe i. One at a time: sizes differ on the way, and results must not depend on the batch."""
    host, results = current_host(), []
    with torch.no_grad():
        for picture, recipe in zip(pictures.split(1), recipes, strict=True):
            host.check_interrupted()
            results.append(recipe.apply(picture))
    return torch.cat(results)


def _sharpened(pictures: Tensor, recipes: Sequence[Recipe]) -> Tensor:
    if not isinstance(recipes[0].steps[0], Sharpen):
        return pictures
    with torch.no_grad():
        return torch.cat([recipe.steps[0].apply(picture) for picture, recipe in zip(pictures.split(1), recipes, strict=True)])


def _require_pictures(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise BadValueError(f"Found a tensor {list(pictures.shape)}, expected pictures [B, 3, H, W].", way_out="Give RGB pictures.")
    require_finite(pictures, "The picture to degrade")
