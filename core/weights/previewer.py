"""InstantIR's Previewer: a low-rank adapter of the U-Net, its image branch and the Resampler, as published.

The file holds no alpha, so alpha is 1 and the adapter's scale is 1 / rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import WeightsError
from ..models.lora_switch import Factors
from .files import require_exact

RANK = 64
# Suffixes of the adapted layers, whole dotted components.
TARGETS = (
    "to_q", "to_kv", "0.to_out", "attn1.to_k", "attn1.to_v", "to_k_ip", "to_v_ip", "ln_k_ip.linear", "ln_v_ip.linear", "to_out.0",
    "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv",
    "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
RESAMPLER = "encoder_hid_proj.image_projection_layers.0."
_IMAGE_BRANCH = re.compile(r"attn2\.(?=(to_[kv]|ln_[kv])_ip)")
_SUFFIX = re.compile(r"\.(lora_A|lora_B|lora\.down|lora\.up)\.weight$")
_FIRST = ("lora_A", "lora.down")


def previewer_factors(tensors: Mapping[str, Tensor], parts: nn.Module, rank: int, where: str) -> dict[str, Factors]:
    """The adapter's factors by the name of the layer in `parts`, which has `unet` (its DCP attached) and `dcp`.

    Raises WeightsError naming the first tensors that are missing, unknown or misshapen: every target has both factors.
    """
    named = {_name_of(name, where): tensor for name, tensor in tensors.items()}
    layers = {name: layer for name, layer in parts.named_modules() if _is_target(name)}
    expected = {}
    for name, layer in layers.items():
        weight = layer.weight
        expected[f"{name}.first"] = (rank, *weight.shape[1:])
        expected[f"{name}.second"] = (weight.shape[0], rank, *[1] * (weight.ndim - 2))
    require_exact(expected, named, where)
    return {name: Factors(named[f"{name}.first"], named[f"{name}.second"]) for name in layers}


def _is_target(name: str) -> bool:
    # The processors hang below the U-Net; what the DCP itself adds is the Resampler.
    inside = name.startswith(("unet.", "dcp.image_proj."))
    return inside and any(name.endswith(f".{target}") for target in TARGETS)


def _name_of(name: str, where: str) -> str:
    """`unet.a.b.lora_A.weight` or `...lora.down.weight` -> `unet.a.b.first`, in the names of our modules."""
    found = _SUFFIX.search(name)
    if found is None or not name.startswith("unet."):
        raise WeightsError(f"tensor {name} is no factor of a low-rank adapter.", where=where, way_out="Choose the Previewer's file.")
    layer = name[: found.start()].removeprefix("unet.")
    if layer.startswith(RESAMPLER):
        layer = f"dcp.image_proj.{layer.removeprefix(RESAMPLER)}"
    else:
        layer = "unet." + _IMAGE_BRANCH.sub("attn2.processor.", layer)
    return f"{layer}.{'first' if found[1] in _FIRST else 'second'}"
