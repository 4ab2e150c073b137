"""Trainable low-rank adapters on a network that stays as it is, so that several of them, and none, share its weights.

GenDR's real and fake score networks and TSD-SR's teacher and auxiliary are one frozen base each, called with one adapter or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import BadValueError
from ..core.models.lora_switch import Factors, Layer, LoraSwitch, layer_to_adapt, merged_weight

_working: ContextVar[tuple[LoraSwitch, ...]] = ContextVar("kintsugi_working_adapters", default=())


def suffix_targets(network: nn.Module, suffixes: Sequence[str]) -> list[str]:
    """Dotted names of the network's linear layers and convolutions that are one of the suffixes or end in a dot and one of them.

    As peft matches `target_modules`. Raises BadValueError when there is none.
    """
    endings = tuple(f".{suffix}" for suffix in suffixes)
    layers = (name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
    found = [name for name in layers if f".{name}".endswith(endings)]
    if not found:
        raise BadValueError(f"no layer of {type(network).__name__} has a name that ends in one of {', '.join(suffixes)}.")
    return found


class Adapted(nn.Module):
    """A network with trainable factors that act during this module's own forward and at no other time.

    The network is no submodule: its weights are neither trained, moved, counted nor saved with this module, and called by itself it
    is the plain one. Its arguments and results are those of the network.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], rank: int, scale: float = 1.0) -> None:
        """layers: dotted names as of suffix_targets(). scale: alpha / rank.

        The factors are float32 beside the layer they belong to; the first is N(0, 1/rank^2) and the second zero, as peft's
        `init_lora_weights="gaussian"`, so that an adapter starts as none. Raises AttributeError for a layer that is not there.
        """
        super().__init__()
        self._held, self._layers, self._scale = (network,), list(layers), scale
        pairs = [_new_factors(layer_to_adapt(network, name), rank) for name in self._layers]
        self.first = nn.ParameterList([pair.first for pair in pairs])
        self.second = nn.ParameterList([pair.second for pair in pairs])

    @property
    def network(self) -> nn.Module:
        """The plain network."""
        return self._held[0]

    @property
    def scale(self) -> float:
        """What the factors' product is multiplied with: alpha / rank."""
        return self._scale

    def factors(self) -> dict[str, Factors]:
        """The trained factors themselves by dotted layer name: lora_A and lora_B in published files."""
        return {name: Factors(*pair) for name, *pair in zip(self._layers, self.first, self.second, strict=True)}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        # Sharded training exchanges the parameters between calls, so that the switch is made anew from those of now.
        with _on((LoraSwitch(self.network, self.factors(), self._scale),)):
            return self.network(*inputs, **named)

    def merged(self) -> dict[str, Tensor]:
        """The network's tensors by name with the factors added to the adapted weights: what exports as a network of its own."""
        tensors = dict(self.network.state_dict())
        for name, pair in self.factors().items():
            tensors[f"{name}.weight"] = merged_weight(tensors[f"{name}.weight"], pair, self._scale)
        return tensors


def checkpoint_gradients(network: nn.Module) -> None:
    """Keep no inner activations of the diffusers networks in `network` for the backward pass, but compute them again.

    Adapters that were on are on again then, which diffusers' own enable_gradient_checkpointing() would not see to. Networks that cannot
    do it stay as they are.
    """
    from diffusers import ModelMixin

    for module in network.modules():
        if isinstance(module, ModelMixin) and module._supports_gradient_checkpointing:
            module.enable_gradient_checkpointing(_recomputed)


def _recomputed(module: Callable[..., Any], *inputs: Any) -> Any:
    working = _working.get()

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _OnAgain(working)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


class _OnAgain(AbstractContextManager[None]):
    """Adapters on, as often as it is entered: a graph that is kept is computed again by each backward pass through it."""

    def __init__(self, switches: tuple[LoraSwitch, ...]) -> None:
        self._switches = switches
        self._entered = ExitStack()

    def __enter__(self) -> None:
        self._entered.enter_context(_on(self._switches))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._entered.close()


@contextmanager
def _on(switches: tuple[LoraSwitch, ...]) -> Iterator[None]:
    token = _working.set((*_working.get(), *switches))
    try:
        with ExitStack() as undo:
            for switch in switches:
                undo.enter_context(switch.on())
            yield
    finally:
        _working.reset(token)


def _new_factors(layer: Layer, rank: int) -> Factors:
    outputs, inputs, *kernel = layer.weight.shape
    first = torch.empty(rank, inputs, *kernel, device=layer.weight.device)
    second = torch.zeros(outputs, rank, *(1 for _ in kernel), device=layer.weight.device)
    return Factors(nn.Parameter(nn.init.normal_(first, std=1 / rank)), nn.Parameter(second))
