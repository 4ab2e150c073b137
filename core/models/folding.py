"""Compute once what a fixed prompt and timestep decide, and drop the modules that computed it.

A one-step restorer always sees the same prompt and the same timestep, so its time embedding, its adaLN modulations and the
keys and values of its text are constants. On SD3 the modules that make them are a third of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ..errors import BadValueError


class Constant(nn.Module):
    """Stands for a module whose output never changes: gives it for as many rows as the first argument has."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        """value [1, ...]."""
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, like: Tensor, *_: object, **__: object) -> Tensor:
        """value [B, ...] for an argument [B, ...]; a single number has one row."""
        rows = like.shape[0] if like.ndim else 1
        return self.value.expand(rows, *self.value.shape[1:])


@torch.no_grad()
def fold_constants(model: nn.Module, patterns: Sequence[str], call: Callable[[], object]) -> None:
    """Replace every module of `model` whose dotted name fits one of the patterns by the output it has during call().

    call runs the model once, batch 1, on any picture with the prompt and timestep that are to stay. Works on the meta device
    too, where it tells the memory that folding saves. A pattern that fits nothing is an error of ours: ValueError.
    """
    found = {name: module for name, module in model.named_modules() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output.detach()}))
        for name, module in found.items()
    ]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    unused = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in outputs)]
    if unused:
        raise ValueError(f"nothing in the model fits {', '.join(unused)}")
    for name, output in outputs.items():
        model.set_submodule(name, Constant(output[:1].clone()))


def require_unfolded(model: nn.Module, where: str) -> None:
    """Raise BadValueError when a prompt and a timestep are built in, so that no other can be given."""
    if any(isinstance(module, Constant) for module in model.modules()):
        raise BadValueError(
            "its stored prompt is built in, so it cannot take another one.",
            where=where,
            way_out="Turn fold_constants off in Load One-Step Generator, or leave the prompt empty.",
        )


def memory_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
