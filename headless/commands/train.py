"""`kintsugi train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...core.errors import BadValueError
from .. import console

EXAMPLE = "Example: kintsugi train mini-vae -o runs/mini-vae --set steps=200"


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe of the package, or a YAML file.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="RUN_DIR", help="Folder of logs, checkpoints and the export.")],
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="key=value", help="Change an entry of the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in RUN_DIR.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and print it in full; train nothing.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU.")] = False,
) -> None:
    """Train the weights that the nodes load."""
    overrides = _overrides(sets or [])
    if dry_run:
        console.say(_recipe_text(recipe, overrides))
        return
    from ...training.run import train as run_training

    for path in run_training(recipe, out, overrides, resume, cpu):
        console.say(str(path))


def _recipe_text(recipe: str, overrides: dict[str, str]) -> str:
    import yaml

    from ...training.recipe import load_recipe

    return yaml.safe_dump(load_recipe(recipe, overrides).model_dump(mode="json"), sort_keys=False).rstrip()


def _overrides(sets: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in sets]
    for key, equals, value in pairs:
        if not key or not equals:
            raise BadValueError("is not of the form key=value.", where=f"--set {key}{value}", way_out="For example: --set steps=200")
    return {key: value for key, _, value in pairs}
