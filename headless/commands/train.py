"""`kintsugi train`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import BadValueError
from .. import console
from ..options import AsJson

if TYPE_CHECKING:
    from ...training.dry_run import DryRun, NetworkSize

EXAMPLE = "Example: kintsugi train mini-vae -o runs/mini-vae --set steps=200"
SHARDING = {"none": "whole", "zero2": "ZeRO-2", "fsdp": "FSDP"}


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe of the package, or a YAML file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RUN_DIR", help="Folder of logs, checkpoints and the export.")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="key=value", help="Change an entry of the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in RUN_DIR.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell networks, parameters, memory and batch; read no weights, train nothing.")
    ] = False,
    as_json: AsJson = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU.")] = False,
) -> None:
    """Train the weights that the nodes load."""
    overrides = _overrides(sets or [])
    if dry_run:
        _dry_run(recipe, overrides, as_json)
        return
    if out is None:
        raise BadValueError("no folder is named.", where="-o", way_out="Give -o RUN_DIR, or --dry-run to see what would be trained.")
    from ...training.run import train as run_training

    files = run_training(recipe, out, overrides, resume, cpu)
    if not files:
        # One of several processes writes them, and tells.
        return
    if as_json:
        console.say_json({"files": files})
        return
    for path in files:
        console.say(str(path))


def _dry_run(name: str, overrides: dict[str, str], as_json: bool) -> None:
    from ...training.dry_run import NOT_COUNTED, dry_run
    from ...training.recipe import load_recipe

    recipe = load_recipe(name, overrides)
    found = dry_run(recipe)
    if as_json:
        console.say_json({**_as_dictionary(found), "not_counted": NOT_COUNTED, "recipe": recipe.model_dump(mode="json")})
        return
    console.say_table(("network", "is", "parameters", "trained", "size"), _network_rows(found))
    console.say()
    console.say_table(("memory of a GPU", "trained", "frozen", "gradients", "optimizer", "average", "all"), _memory_rows(found))
    console.say(f"Not counted: {NOT_COUNTED}.")
    console.say()
    split = f"{recipe.batch} x {recipe.accumulate} accumulated x {recipe.processes} processes"
    console.say(f"Batch: {found.batch} ({split}). Steps: {found.steps:,}. Pictures: {found.pictures:,}.")


def _as_dictionary(found: DryRun) -> dict[str, Any]:
    memory = [{**asdict(one), "total": one.total} for one in found.memory]
    return {**asdict(found), "memory": memory, "pictures": found.pictures}


def _network_rows(found: DryRun) -> Iterator[tuple[str, ...]]:
    for size in found.networks:
        name = f"  {size.name}" if size.is_part else size.name
        bytes_all = console.human_size(size.parameters * size.bytes_each)
        yield name, "trained" if size.turn else "frozen", f"{size.parameters:,}", f"{size.trainable:,}", bytes_all
    whole: list[NetworkSize] = [size for size in found.networks if not size.is_part]
    yield "all", "", f"{sum(size.parameters for size in whole):,}", f"{sum(size.trainable for size in whole):,}", ""


def _memory_rows(found: DryRun) -> Iterator[tuple[str, ...]]:
    for one in found.memory:
        amounts = (one.trained, one.frozen, one.gradients, one.optimizer, one.average, one.total)
        yield SHARDING[one.sharding], *(console.human_size(amount) for amount in amounts)


def _overrides(sets: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in sets]
    for key, equals, value in pairs:
        if not key or not equals:
            raise BadValueError("is not of the form key=value.", where=f"--set {key}{value}", way_out="For example: --set steps=200")
    return {key: value for key, _, value in pairs}
