"""Checkpoints without pickles: tensors in safetensors, scalars in JSON, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import RecipeError

KEPT = 2


def save_checkpoint(
    folder: Path, step: int, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, facts: dict[str, Any]
) -> None:
    """folder/step-000123/: modules, optimizer state and facts. The newest two are kept."""
    final = folder / f"step-{step:06d}"
    draft = folder / f".step-{step:06d}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, module in modules.items():
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, draft / f"{name}.safetensors")
    save_file(_flat_state(optimizer), draft / "optimizer.safetensors")
    (draft / "facts.json").write_text(json.dumps({"step": step, **facts}))
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the newest checkpoint into modules and optimizer and return its facts; RecipeError when there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        raise RecipeError("no checkpoint to resume from.", where=str(folder), way_out="Start without --resume.")
    for name, module in modules.items():
        module.load_state_dict(load_file(found[-1] / f"{name}.safetensors"))
    _restore_state(optimizer, load_file(found[-1] / "optimizer.safetensors"))
    return json.loads((found[-1] / "facts.json").read_text())


def _flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value.contiguous() for index, values in state.items() for name, value in values.items()}


def _restore_state(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
