"""Low-rank adapters of a U-Net alone, such as the LCM-LoRA for SDXL: in kohya's names, or those of diffusers and peft."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..errors import WeightsError
from ..models.lora_switch import Factors
from .files import require_exact

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_ROLES = {
    "lora_A.weight": "first", "lora.down.weight": "first", "lora_down.weight": "first",
    "lora_B.weight": "second", "lora.up.weight": "second", "lora_up.weight": "second",
    "alpha": "alpha",
}  # fmt: skip
_NAME = re.compile(rf"(?:lora_unet_(?P<flat>\w+)|unet\.(?P<dotted>.+))\.(?P<role>{'|'.join(map(re.escape, _ROLES))})")
_TEXT_ENCODERS = ("lora_te", "text_encoder")


def factor_shapes(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the first factor, with the layer's kernel, and of the second, 1x1 for a convolution."""
    outputs, *inputs = layer.weight.shape
    return (rank, *inputs), (outputs, rank, *[1] * (len(inputs) - 1))


def unet_factors(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, where: str) -> dict[str, Factors]:
    """The adapter's factors by the name of the layer below `unet.`, alpha / rank multiplied into the second; alpha is the rank where
    a layer has none.

    Raises WeightsError naming the first tensors that are unknown or misshapen, and layers with one factor alone.
    """
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    flat = {name.replace(".", "_"): name for name in layers}
    assert len(flat) == len(layers)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, role = _parsed(name, flat, where)
        parts.setdefault(layer, {})[role] = tensor
    expected: dict[str, tuple[int, ...]] = {}
    for layer, found in parts.items():
        first, second = factor_shapes(layers[layer], found["first"].shape[0] if "first" in found else 0)
        expected |= {f"{layer}.first": first, f"{layer}.second": second}
        expected |= {f"{layer}.alpha": ()} if "alpha" in found else {}
    require_exact(expected, {f"{layer}.{role}": tensor for layer, found in parts.items() for role, tensor in found.items()}, where)
    return {f"unet.{layer}": _scaled(found) for layer, found in parts.items()}


def _parsed(name: str, flat: Mapping[str, str], where: str) -> tuple[str, str]:
    """Layer and role of a tensor. Kohya's names have underscores for dots, which only the network's own names can undo."""
    if name.startswith(_TEXT_ENCODERS):
        raise WeightsError(
            f"adapts a text encoder ({name}), which no Previewer does.", where=where, way_out="Choose the LCM-LoRA for SDXL."
        )
    match = _NAME.fullmatch(name)
    layer = None if match is None else flat.get(match["flat"] or match["dotted"].replace(".", "_"))
    if match is None or layer is None:
        raise WeightsError(
            f"tensor {name} belongs to no layer of the prior's U-Net.",
            where=where,
            way_out="Choose an adapter of the prior, such as the LCM-LoRA for SDXL.",
        )
    return layer, _ROLES[match["role"]]


def _scaled(parts: Mapping[str, Tensor]) -> Factors:
    rank = parts["first"].shape[0]
    alpha = float(parts["alpha"]) if "alpha" in parts else rank
    return Factors(parts["first"], parts["second"].float() * (alpha / rank))
