"""What a recipe would train, in numbers, before a weight is read or a picture drawn: `kintsugi train RECIPE --dry-run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .data import require_presets
from .recipe import Recipe
from .stages import build_stage
from .stages.base import Stage

BYTES = {"no": 4, "bf16": 2, "fp16": 2}
TRAINED_BYTES = 4
"""Trained weights, their gradients, each of AdamW's two states and the averaged weights are float32, whatever is computed in."""
LARGEST_PARTS = 4

Sharding = Literal["none", "zero2", "fsdp"]
NOT_COUNTED = "activations, buffers of the exchange between processes, and 16-bit copies of trained weights while they are used"


@dataclass(frozen=True)
class NetworkSize:
    """name: of a network, or `network.part` of what it consists of. turn: which trains it, None for a frozen one. parameters, trainable:
    how many; bytes_each: of one parameter."""

    name: str
    turn: str | None
    parameters: int
    trainable: int
    bytes_each: int
    is_part: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on each of `processes` GPUs. sharding: none, DeepSpeed's ZeRO-2 (gradients and optimizer states), or FSDP (weights as
    well)."""

    sharding: Sharding
    trained: int
    frozen: int
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        """Of all of them."""
        return self.trained + self.frozen + self.gradients + self.optimizer + self.average


@dataclass(frozen=True)
class DryRun:
    """trainable: parameters by turn. batch: pictures of one step, over all processes and accumulated batches."""

    stage: str
    networks: list[NetworkSize]
    trainable: dict[str, int]
    memory: list[Memory]
    batch: int
    processes: int
    steps: int

    @property
    def pictures(self) -> int:
        """Crops that all steps see."""
        return self.batch * self.steps


def dry_run(recipe: Recipe) -> DryRun:
    """The numbers of a recipe. Raises RecipeError, BadValueError, and WeightsError for embedded weights that are not there."""
    require_presets(recipe.data)
    stage = _built(recipe)
    sizes = list(_sizes(stage, BYTES[recipe.frozen_precision]))
    return DryRun(
        stage=recipe.stage,
        networks=sizes,
        trainable={turn: _count(network.parameters(), trainable=True) for turn, network in stage.networks.items()},
        memory=[_memory(sizes, sharding, recipe.processes) for sharding in ("none", "zero2", "fsdp")],
        batch=recipe.batch * recipe.accumulate * recipe.processes,
        processes=recipe.processes,
        steps=recipe.steps,
    )


def _built(recipe: Recipe) -> Stage:
    """On the meta device, where a base has its published sizes. What stands on the embedded weights is small and has theirs."""
    if "embedded" in recipe.settings.values():
        return build_stage(recipe)
    with torch.device("meta"):
        return build_stage(recipe)


def _sizes(stage: Stage, frozen_bytes: int) -> Iterable[NetworkSize]:
    """Trained networks and their parts, then frozen ones; a parameter that several hold is counted with the first."""
    counted: set[int] = set()
    for turn, network in stage.networks.items():
        yield NetworkSize(turn, turn, *_counts(network, counted), TRAINED_BYTES)
        for name, part in _parts(network).items():
            yield NetworkSize(f"{turn}.{name}", turn, *_counts(part, set()), TRAINED_BYTES, is_part=True)
    frozen = stage.frozen if stage.vae is None else {**stage.frozen, "vae": stage.vae}
    for name, network in frozen.items():
        parameters, _ = _counts(network, counted)
        yield NetworkSize(name, None, parameters, 0, frozen_bytes)


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    """The few networks that one consists of; none of one that is made of layers."""
    parts = {name: part for name, part in network.named_children() if _count(part.parameters())}
    are_layers = any(isinstance(part, nn.ParameterList | nn.ModuleList) for part in parts.values())
    return parts if 2 <= len(parts) <= LARGEST_PARTS and not are_layers else {}


def _counts(network: nn.Module, counted: set[int]) -> tuple[int, int]:
    """All and trainable parameters that are not among the counted ones, which they join."""
    new = [parameter for parameter in network.parameters() if id(parameter) not in counted]
    counted.update(id(parameter) for parameter in new)
    return _count(new), _count(new, trainable=True)


def _count(parameters: Iterable[nn.Parameter], trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad or not trainable)


def _memory(sizes: list[NetworkSize], sharding: Sharding, processes: int) -> Memory:
    whole = [size for size in sizes if not size.is_part]
    trained = sum(size.parameters for size in whole if size.turn)
    trainable = sum(size.trainable for size in whole)
    of_weights = processes if sharding == "fsdp" else 1
    of_states = processes if sharding != "none" else 1
    return Memory(
        sharding=sharding,
        trained=trained * TRAINED_BYTES // of_weights,
        frozen=sum(size.parameters * size.bytes_each for size in whole if not size.turn),
        gradients=trainable * TRAINED_BYTES // of_states,
        optimizer=2 * trainable * TRAINED_BYTES // of_states,
        average=trained * TRAINED_BYTES // of_weights,
    )
