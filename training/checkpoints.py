"""Checkpoints without pickles: tensors in safetensors, scalars in JSON, whole or not at all.

Tensors are written whole, by their names, so that a run may go on in another number of processes or shared in another way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.errors import RecipeError
from .average import Average
from .learners import Learner, State
from .recipe import Recipe, faults_of
from .shares import fill, whole

KEPT = 2
FACTS = "facts.json"
# What a resumed run may do otherwise: nothing of it changes the steps that were done.
CHANGEABLE = ("steps", "checkpoint_every", "validate_every", "data.root", "data.workers")
ANEW = "Take the recipe as it was, or another folder."


def save_checkpoint(
    folder: Path, step: int, learners: Mapping[str, Learner], average: Average, facts: dict[str, Any], writes: bool = True
) -> None:
    """folder/step-000123/: weights and optimizer state by turn, the averaged weights and facts. The newest two are kept.

    To be called by all processes together; one of them writes.
    """
    final = folder / f"step-{step:06d}"
    draft = folder / f".step-{step:06d}.partial"
    if writes:
        for old in folder.glob(".step-*.partial"):
            shutil.rmtree(old)
        draft.mkdir(parents=True)
    for name, state in _states(learners, average):
        # Every process has to take part in bringing shares together, tensor by tensor.
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state if writes}
        if writes:
            save_file(tensors, draft / f"{name}.safetensors")
    if writes:
        (draft / FACTS).write_text(json.dumps({"step": step, "averaged": average.count, **facts}))
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last one that was written whole."""
    return max(folder.glob("step-*"), default=None)


def load_checkpoint(folder: Path, learners: Mapping[str, Learner], average: Average, recipe: Recipe, processes: int) -> dict[str, Any]:
    """Load the newest checkpoint and return its facts.

    Raises RecipeError when there is none, and when the run that it is of was another one.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        raise RecipeError("no checkpoint to resume from.", where=str(folder), way_out="Start without --resume.")
    facts: dict[str, Any] = json.loads((newest / FACTS).read_text())
    _refuse_another_run(facts, recipe, processes, str(newest))
    for turn, learner in learners.items():
        _load(learner.network.state_dict(), load_file(newest / f"{turn}.safetensors"), str(newest))
        learner.load_state(load_file(newest / f"{turn}-optimizer.safetensors"))
    average.load(load_file(newest / "average.safetensors"), facts["averaged"])
    return facts


def _states(learners: Mapping[str, Learner], average: Average) -> Iterator[tuple[str, State]]:
    for turn, learner in learners.items():
        yield turn, _whole(learner.network.state_dict())
        yield f"{turn}-optimizer", learner.state()
    yield "average", _whole(average.tensors)


def _whole(tensors: Mapping[str, Tensor]) -> State:
    for name, tensor in tensors.items():
        yield name, whole(tensor)


def _load(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    if targets.keys() != tensors.keys():
        raise RecipeError("holds the tensors of other networks.", where=where, way_out="Use the version of the code that made it.")
    for name, target in targets.items():
        fill(target, tensors[name])


def _refuse_another_run(facts: dict[str, Any], recipe: Recipe, processes: int, where: str) -> None:
    try:
        begun = Recipe.model_validate(facts["recipe"])
    except ValidationError as error:
        raise RecipeError(f"was made by a recipe that is none any more: {faults_of(error)}.", where=where, way_out=ANEW) from error
    if facts["processes"] != processes:
        way_out = f"Launch as many: torchrun --nproc_per_node {facts['processes']} ..."
        raise RecipeError(f"was made by {facts['processes']} processes, and now there are {processes}.", where=where, way_out=way_out)
    then, now = (_entries(each.model_dump(mode="json")) for each in (begun, recipe))
    keys = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key) and key not in CHANGEABLE]
    if keys:
        changes = "; ".join(f"{key} was {then.get(key)} and is {now.get(key)}" for key in keys)
        raise RecipeError(f"was made by another recipe: {changes}.", where=where, way_out=ANEW)


def _entries(content: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by dotted key."""
    if not isinstance(content, dict):
        return {prefix: content}
    return {key: value for name, part in content.items() for key, value in _entries(part, f"{prefix}.{name}".lstrip(".")).items()}
