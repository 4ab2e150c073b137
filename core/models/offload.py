"""Where a network's weights lie between its calls: on the device, or in the machine's memory until they are needed."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ..errors import BadValueError, OutOfMemoryError
from ..module_tensors import slots_of
from ..runtime import current_host, is_out_of_memory
from .folding import memory_of

Offload = Literal["none", "model", "group", "layerwise fp8"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)

STORED = torch.float8_e4m3fn
# Kept as they are, beside what diffusers leaves alone (norms, positions, patches): a U-Net's first and last convolution.
UNSTORED = ("^conv_in$", "^conv_out$")

Network = TypeVar("Network", bound=nn.Module)


def place(network: Network, dtype: torch.dtype, offload: Offload = "none") -> Network:
    """The network ready for inference on the host's device in that dtype; a VAE in the host's vae_dtype where there is one.

    network: a diffusers network, or a module around one, whose other tensors stay on the device. none: the weights stay there
    until the host needs their memory. model: they come to the device for a call and leave after it. group: block after block,
    the next one while this one computes. layerwise fp8: they stay there in 8 bits and are computed with in dtype. A VAE is
    called layer by layer, so both kinds of offloading bring its weights so; and it is not kept in 8 bits, because it is small
    and its rounding shows.
    Raises OutOfMemoryError, and BadValueError for 8 bits on a device without them.
    """
    device = current_host().device
    dtype = (current_host().vae_dtype if _is_vae(network) else None) or dtype
    # nn.Module's own `to`: that of diffusers warns of an empty list.
    nn.Module.to(network, dtype)
    nn.Module.to(network, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    try:
        _settle(network, dtype, offload, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"weights of {memory_of(network) / 2**30:.1f} GiB do not fit the device.",
            way_out="Choose offload group, which needs least of it, or dtype bf16.",
        ) from error
    return network


def spared(offload: Offload) -> Offload:
    """The offload that was asked for, or in groups where it was none and the host is told to spare the device's memory."""
    return "group" if offload == "none" and current_host().spares_memory else offload


def _settle(network: nn.Module, dtype: torch.dtype, offload: Offload, device: torch.device) -> None:
    parts = [] if offload == "none" else _networks_in(network) or [network]
    if offload == "layerwise fp8":
        for part in parts:
            _store_in_8_bits(part, dtype, device)
        parts = []
    waiting = [module for part in parts for module in (_layers(part) if _is_vae(part) else [part])]
    if not waiting:
        current_host().hold(network)
        return
    away = {id(slot.tensor) for module in waiting for slot in slots_of(module)}
    for slot in slots_of(network):
        if id(slot.tensor) not in away:
            slot.put(slot.on(device))
    for module in waiting:
        _bring_for_calls(module, device, in_groups=offload == "group" and module in parts)


def _networks_in(module: nn.Module) -> list[nn.Module]:
    """The outermost diffusers networks in a method, or what is none itself; they hold others that are parts of them."""
    from diffusers import ModelMixin

    if isinstance(module, ModelMixin):
        return [module]
    return [found for child in module.children() for found in _networks_in(child)]


def _is_vae(module: nn.Module) -> bool:
    from diffusers import AutoencoderKL

    return isinstance(module, AutoencoderKL)


def _layers(network: nn.Module) -> list[nn.Module]:
    """Nearly all of its weights. Norms stay on the device: tiled VAEs compute with theirs without calling them."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _bring_for_calls(module: nn.Module, device: torch.device, in_groups: bool) -> None:
    """Hooks that bring the module's weights for each of its calls; what a call gives lies where its input lay."""
    from diffusers.hooks import apply_group_offloading

    is_layer = isinstance(module, nn.Conv2d | nn.Linear)
    visit = _Visit(module, device, 0 if is_layer or in_groups else memory_of(module))
    module.register_forward_pre_hook(visit.ask, with_kwargs=True)
    if in_groups:
        streamed = device.type == "cuda"
        apply_group_offloading(module, device, offload_type="block_level", num_blocks_per_group=1, use_stream=streamed)
    else:
        module.register_forward_pre_hook(visit.fetch, with_kwargs=True)
        module.register_forward_hook(visit.leave, always_call=True)
    if not is_layer:
        module.register_forward_hook(visit.answer)


class _Visit:
    """A module's calls on a device where its weights do not live. They are never copied back: inference changes none."""

    def __init__(self, module: nn.Module, device: torch.device, room: int) -> None:
        """room: bytes that the host frees before a call; 0 for what is too small to ask for."""
        self.device = self.asked_from = device
        self.room = room
        self.slots = slots_of(module)

    def ask(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.room:
            current_host().make_room(self.room)
        self.asked_from = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))

    def fetch(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        from accelerate.utils import send_to_device

        for slot in self.slots:
            slot.put(slot.on(self.device))
        return send_to_device(args, self.device), send_to_device(kwargs, self.device)

    def leave(self, *_: object) -> None:
        for slot in self.slots:
            slot.put(slot.tensor)

    def answer(self, _: nn.Module, __: object, output: Any) -> Any:
        from accelerate.utils import send_to_device

        return send_to_device(output, self.asked_from)


def _store_in_8_bits(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Before the network goes to the device, so that it never lies there whole."""
    from diffusers.hooks import apply_layerwise_casting
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

    if device.type == "mps":
        raise BadValueError("MPS has no 8-bit floating point numbers.", way_out="Choose offload none or group.")
    if not _is_vae(network):
        skipped = (*DEFAULT_SKIP_MODULES_PATTERN, *(getattr(network, "_skip_layerwise_casting_patterns", None) or ()), *UNSTORED)
        apply_layerwise_casting(network, STORED, dtype, skipped)
