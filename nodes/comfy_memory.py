"""Our networks in ComfyUI's list of loaded models, so that it can send them away and we can ask it for room."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..core.models.folding import memory_of
from ..core.module_tensors import bring


class KintsugiNetwork(nn.Module):
    """What ComfyUI takes for the model itself: it logs the name, and notices when it is gone. Without weights of its own."""


class HeldNetwork:
    """A network as ComfyUI's memory management sees its own models: it says how much it occupies, and comes and goes when told.

    patcher: ComfyUI's own, of a KintsugiNetwork; it answers whatever else is asked, about patches and hooks, which there are none of.
    recall: called, with the network, by the first of its modules that is called while it is away. The network is not kept alive.
    """

    def __init__(self, network: nn.Module, patcher: Any, recall: Callable[[nn.Module], None]) -> None:
        self._network = weakref.ref(network)
        self._patcher, self._recall = patcher, recall
        self._size = memory_of(network)
        self._is_here = False
        self._watches: list[RemovableHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._patcher, name)

    def model_size(self) -> int:
        return self._size

    def loaded_size(self) -> int:
        return self._size if self._is_here else 0

    def current_loaded_device(self) -> torch.device:
        device: torch.device = self._patcher.load_device if self._is_here else self._patcher.offload_device
        return device

    def partially_load(self, device_to: torch.device, *_: object, **__: object) -> int:
        """To the device, always whole; the bytes that came."""
        network = self._network()
        if network is None or self._is_here:
            return 0
        bring(network, device_to)
        self._is_here = True
        self._stop_watching()
        return self._size

    def partially_unload(self, *_: object, **__: object) -> int:
        """A part of a network is of no use: ComfyUI then sends the whole away, by detach()."""
        return 0

    def detach(self, unpatch_all: bool = True) -> Any:
        """To where ComfyUI keeps weights that are not in use. It also calls this, with False, for models that stay."""
        network = self._network()
        if network is not None and self._is_here and unpatch_all:
            bring(network, self._patcher.offload_device)
            self._is_here = False
            self._watches = [module.register_forward_pre_hook(self._come_back) for module in network.modules()]
        return self._patcher.model

    def _come_back(self, *_: object) -> None:
        network = self._network()
        assert network is not None
        self._recall(network)

    def _stop_watching(self) -> None:
        while self._watches:
            self._watches.pop().remove()
