"""Averaged weights of what is trained: shown and exported in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .shares import fill


class Average:
    """An exponential moving average of the parameters of some networks; buffers are taken as they are.

    Its decay starts at 0.1 and grows to `decay`, so that the start is forgotten.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self._networks, self._decay = networks, decay
        self.tensors = {name: parameter.detach().clone() for name, parameter in self._parameters()}
        self.count = 0

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for turn, network in self._networks.items():
            for name, parameter in network.named_parameters():
                yield f"{turn}.{name}", parameter

    @torch.no_grad()
    def update(self) -> None:
        """Take in the networks as they are now."""
        held = min(self._decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(list(self.tensors.values()), [parameter.data for _, parameter in self._parameters()], 1 - held)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the networks hold the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._parameters():
            last = parameter.data.clone()
            parameter.data.copy_(self.tensors[name])
            self.tensors[name] = last

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Go on from a checkpoint's average."""
        for name, tensor in tensors.items():
            fill(self.tensors[name], tensor)
        self.count = count
