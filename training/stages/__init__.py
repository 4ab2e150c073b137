"""One file per stage of one paper."""

from __future__ import annotations

from ...core.errors import RecipeError
from ..recipe import Recipe, Strict
from .base import Stage


def build_stage(recipe: Recipe) -> Stage:
    """The recipe's stage from its settings; RecipeError for a stage or setting that does not exist."""
    from pydantic import ValidationError

    from .gendr_restorer import GendrRestorerSettings, GendrRestorerStage
    from .mini_vae import MiniVaeSettings, MiniVaeStage
    from .swinir_restorer import SwinirRestorerSettings, SwinirRestorerStage

    stages: dict[str, tuple[type[Strict], type]] = {
        "mini-vae": (MiniVaeSettings, MiniVaeStage),
        "gendr-restorer": (GendrRestorerSettings, GendrRestorerStage),
        "swinir-restorer": (SwinirRestorerSettings, SwinirRestorerStage),
    }
    if recipe.stage not in stages:
        raise RecipeError(f"unknown stage {recipe.stage!r}.", where="stage", way_out=f"Known: {', '.join(sorted(stages))}.")
    settings, stage = stages[recipe.stage]
    try:
        return stage(settings.model_validate(recipe.settings))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise RecipeError(faults, where="settings") from error
