"""Checkpoints without pickles: tensors in safetensors, scalars in JSON, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import RecipeError
from .average import Average

KEPT = 2


def save_checkpoint(
    folder: Path,
    step: int,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    average: Average,
    facts: dict[str, Any],
) -> None:
    """folder/step-000123/: weights and optimizer state by turn, the averaged weights and facts. The newest two are kept."""
    final = folder / f"step-{step:06d}"
    draft = folder / f".step-{step:06d}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for turn, network in networks.items():
        _save(network.state_dict(), draft / f"{turn}.safetensors")
        _save(_flat_state(optimizers[turn]), draft / f"{turn}-optimizer.safetensors")
    _save(average.tensors, draft / "average.safetensors")
    (draft / "facts.json").write_text(json.dumps({"step": step, "averaged": average.count, **facts}))
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], average: Average
) -> dict[str, Any]:
    """Load the newest checkpoint and return its facts; RecipeError when there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        raise RecipeError("no checkpoint to resume from.", where=str(folder), way_out="Start without --resume.")
    facts: dict[str, Any] = json.loads((found[-1] / "facts.json").read_text())
    for turn, network in networks.items():
        network.load_state_dict(load_file(found[-1] / f"{turn}.safetensors"))
        _restore_state(optimizers[turn], load_file(found[-1] / f"{turn}-optimizer.safetensors"))
    average.load(load_file(found[-1] / "average.safetensors"), facts["averaged"])
    return facts


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)


def _flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _restore_state(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
