"""Weights in 8 bits with a scale for every layer beside them, as ComfyUI keeps them."""

from __future__ import annotations

import torch
from torch import Tensor

# The scale's name beside `weight`; the second is the newer one.
SCALES = ("scale_weight", "weight_scale")
# What such files hold beside weights and scales: for multiplying in 8 bits, and to mark them.
UNUSED = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")
STORED = (torch.float8_e4m3fn, torch.float8_e5m2)


def unscaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with weights multiplied by their scales, bfloat16, and the scales gone; others as they are."""
    found = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in (*SCALES, *UNUSED)}
    for name, scale in tensors.items():
        layer, _, kind = name.rpartition(".")
        weight = found.get(f"{layer}.weight") if kind in SCALES else None
        if weight is not None and weight.dtype in STORED:
            found[f"{layer}.weight"] = (weight.to(torch.float32) * scale.to(torch.float32)).to(torch.bfloat16)
    return found
