"""Every tensor of a network where it is looked up, so that whole networks come and go between devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """A parameter or buffer and the place in its module where it is looked up."""

    table: dict[str, Any]
    name: str
    tensor: Tensor

    def on(self, device: torch.device) -> Tensor:
        """The tensor on the device: itself where it lies there, and a parameter if it is one."""
        tensor = self.tensor.to(device)
        is_plain = isinstance(self.tensor, nn.Parameter) and not isinstance(tensor, nn.Parameter)
        return nn.Parameter(tensor, requires_grad=False) if is_plain else tensor

    def put(self, tensor: Tensor) -> None:
        """Let the module find another tensor there."""
        self.table[self.name] = tensor


def slots_of(module: nn.Module) -> list[Slot]:
    """Every parameter and buffer of the module and its parts."""
    tables = [table for owner in module.modules() for table in (owner._parameters, owner._buffers)]
    return [Slot(table, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]


def bring(module: nn.Module, device: torch.device) -> None:
    """Every parameter and buffer to the device, what modules share once. Where they do not fit, all stay where they were."""
    slots = slots_of(module)
    brought: dict[int, Tensor] = {}
    for slot in slots:
        if id(slot.tensor) not in brought:
            brought[id(slot.tensor)] = slot.on(device)
    for slot in slots:
        slot.put(brought[id(slot.tensor)])


def is_bound(module: nn.Module) -> bool:
    """Whether it has weights of bitsandbytes, which stay on the device that they were brought to first."""
    return any(type(parameter).__module__.startswith("bitsandbytes") for parameter in module.parameters())
