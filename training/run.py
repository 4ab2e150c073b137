"""`kintsugi train`: a recipe into a folder."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import RecipeError
from .recipe import load_recipe


def train(recipe: str, run_directory: Path, overrides: dict[str, str], resume: bool = False, cpu: bool = False) -> list[Path]:
    """Train a recipe (shipped name or YAML path) in run_directory; returns the exported files, in the process that wrote them.

    overrides: `key.key` -> YAML value. resume: go on from the newest checkpoint in run_directory.
    """
    import torch

    from .stages import build_stage
    from .trainer import Trainer

    chosen = load_recipe(recipe, overrides)
    if not resume and (run_directory / "checkpoints").exists():
        raise RecipeError("holds an earlier run.", where=str(run_directory), way_out="Give --resume to go on, or another folder.")
    torch.manual_seed(chosen.seed)
    return Trainer(chosen, build_stage(chosen), run_directory, cpu).run(resume)
