"""One file per stage of one paper."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ...core.errors import RecipeError
from ..recipe import Recipe, faults_of

if TYPE_CHECKING:
    from .base import Stage

# Module and class by the name that recipes call a stage.
STAGES = {
    "denoising-prior": "denoising_prior:DenoisingPriorStage",
    "fluxir": "fluxir:FluxIrStage",
    "gendr": "gendr:GendrStage",
    "gendr-base": "gendr_base:GendrBaseStage",
    "gendr-restorer": "gendr_restorer:GendrRestorerStage",
    "instantir-aggregator": "instantir_aggregator:InstantIrAggregatorStage",
    "instantir-dcp": "instantir_dcp:InstantIrDcpStage",
    "instantir-previewer": "instantir_previewer:InstantIrPreviewerStage",
    "instarevive": "instarevive:InstaReviveStage",
    "mini-vae": "mini_vae:MiniVaeStage",
    "swinir-restorer": "swinir_restorer:SwinirRestorerStage",
    "tsd-sr": "tsd_sr:TsdSrStage",
    "tsd-sr-teacher": "tsd_sr_teacher:TsdSrTeacherStage",
}


def stage_class(name: str) -> type[Stage]:
    """The stage that recipes call so. Raises RecipeError."""
    if name not in STAGES:
        raise RecipeError(f"unknown stage {name!r}.", where="stage", way_out=f"Known: {', '.join(sorted(STAGES))}.")
    module, _, attribute = STAGES[name].partition(":")
    found: type[Stage] = getattr(import_module(f".{module}", __name__), attribute)
    return found


def build_stage(recipe: Recipe) -> Stage:
    """The recipe's stage from its settings; RecipeError for a stage, a setting or a loss that does not exist."""
    from pydantic import ValidationError

    chosen = stage_class(recipe.stage)
    known = {loss for losses in chosen.turns.values() for loss in losses}
    for phase in recipe.phases:
        for name in sorted(phase.weights.keys() - known):
            raise RecipeError(f"{recipe.stage} has no loss {name!r}.", where="phases", way_out=f"Its losses: {', '.join(sorted(known))}.")
    if recipe.optimizers.keys() != chosen.turns.keys():
        found, expected = ", ".join(recipe.optimizers), ", ".join(chosen.turns)
        raise RecipeError(f"names {found}, expected one for each turn of {recipe.stage}: {expected}.", where="optimizers")
    try:
        settings = chosen.Settings.model_validate(recipe.settings)
    except ValidationError as error:
        raise RecipeError(faults_of(error), where="settings") from error
    return chosen(settings)
