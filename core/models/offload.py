"""Where a network's weights lie between its calls: on the device, or in the machine's memory until they are needed."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

import torch
from torch import nn

from ..runtime import current_host

Offload = Literal["none", "model", "group", "layerwise fp8"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)

Network = TypeVar("Network", bound=nn.Module)


def place(network: Network, dtype: torch.dtype, offload: Offload = "none") -> Network:
    """The network ready for inference on the host's device in that dtype."""
    # nn.Module's own `to`: that of diffusers warns of an empty list.
    nn.Module.to(network, current_host().device, dtype)
    return nn.Module.to(network, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
