"""A low-rank adapter that is switched on for some calls and off for others, without a second copy of the network.

InstantIR's Previewer is the same U-Net with such an adapter, on at every preview and off at every denoising step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Factors(NamedTuple):
    """first: lora_A [r, in, ...], with the base layer's kernel; second: lora_B [out, r, ...], 1x1 for a convolution."""

    first: Tensor
    second: Tensor


Layer = nn.Linear | nn.Conv2d


class LoraSwitch:
    """y = base(x) + scale second(first(x)) on the named layers while on() lasts.

    merged: keep each adapted weight beside the plain one and exchange the two, which costs their memory and saves the extra
    products; else the products are computed live.
    """

    def __init__(self, networks: nn.Module, factors: Mapping[str, Factors], scale: float, merged: bool = False) -> None:
        """factors: by dotted name of a linear or convolution in `networks`. Raises AttributeError for a name that is not there."""
        self._enabled = False
        layers = {name: _layer(networks, name) for name in factors}
        self._layers = list(layers.values()) if merged else []
        self._others = [_merged(layers[name].weight, pair, scale) for name, pair in factors.items()] if merged else []
        if not merged:
            for name, pair in factors.items():
                self._add_hook(layers[name], pair, scale)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside the block the layers are adapted."""
        self._turn()
        try:
            yield
        finally:
            self._turn()

    def _turn(self) -> None:
        self._enabled = not self._enabled
        for index, layer in enumerate(self._layers):
            layer.weight.data, self._others[index] = self._others[index], layer.weight.data

    def _add_hook(self, layer: Layer, pair: Factors, scale: float) -> None:
        first, second = (factor.to(layer.weight) for factor in pair)

        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + scale * _product(layer, inputs[0], first, second) if self._enabled else output

        layer.register_forward_hook(add)


def _layer(networks: nn.Module, name: str) -> Layer:
    layer = networks.get_submodule(name)
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise AttributeError(f"{name} is a {type(layer).__name__}, which cannot be adapted")
    return layer


def _merged(weight: Tensor, pair: Factors, scale: float) -> Tensor:
    product = pair.second.float().flatten(1) @ pair.first.float().flatten(1)
    return (weight.detach().float() + scale * product.to(weight.device).view_as(weight)).to(weight)


def _product(layer: Layer, inputs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(F.conv2d(inputs, first, stride=layer.stride, padding=layer.padding), second)
    return F.linear(F.linear(inputs, first), second)
