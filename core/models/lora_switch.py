"""A low-rank adapter that is switched on for some calls and off for others, without a second copy of the network.

InstantIR's Previewer is the same U-Net with such an adapter, on at every preview and off at every denoising step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle


class Factors(NamedTuple):
    """first: lora_A [r, in, ...], with the base layer's kernel; second: lora_B [out, r, ...], 1x1 for a convolution."""

    first: Tensor
    second: Tensor


Layer = nn.Linear | nn.Conv2d


class LoraSwitch:
    """y = base(x) + scale second(first(x)) on the named layers while on() lasts; before and after it nothing of this is on them.

    merged: keep each adapted weight beside the plain one and exchange the two, which costs their memory and saves the extra
    products; else the products are computed live.
    """

    def __init__(self, networks: nn.Module, factors: Mapping[str, Factors], scale: float, merged: bool = False) -> None:
        """factors: by dotted name of a linear or convolution in `networks`, on the device and in the dtype that it computes in.

        Raises AttributeError for a name that is not there.
        """
        self._scale = scale
        self._pairs = [(layer_to_adapt(networks, name), pair) for name, pair in factors.items()]
        self._others = [_parameter(merged_weight(layer.weight, pair, scale)) for layer, pair in self._pairs] if merged else None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside the block the layers are adapted."""
        with ExitStack() as undo:
            if self._others is None:
                for layer, pair in self._pairs:
                    undo.callback(self._added(layer, pair).remove)
            else:
                self._exchange(self._others)
                undo.callback(self._exchange, self._others)
            yield

    def _exchange(self, others: list[nn.Parameter]) -> None:
        for index, (layer, _) in enumerate(self._pairs):
            layer.weight, others[index] = others[index], layer.weight

    def _added(self, layer: Layer, pair: Factors) -> RemovableHandle:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self._scale * _product(layer, inputs[0], *pair)

        return layer.register_forward_hook(add)


def layer_to_adapt(networks: nn.Module, name: str) -> Layer:
    """The linear layer or convolution of that dotted name; AttributeError when it is not there or is something else."""
    layer = networks.get_submodule(name)
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise AttributeError(f"{name} is a {type(layer).__name__}, which cannot be adapted")
    return layer


def merged_weight(weight: Tensor, pair: Factors, scale: float) -> Tensor:
    """weight + scale second first, of the weight's shape and dtype, without gradient; the sum is formed in float32."""
    product = pair.second.detach().float().flatten(1) @ pair.first.detach().float().flatten(1)
    return (weight.detach().float() + scale * product.view_as(weight)).to(weight)


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _product(layer: Layer, inputs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(F.conv2d(inputs, first, stride=layer.stride, padding=layer.padding), second)
    return F.linear(F.linear(inputs, first), second)
