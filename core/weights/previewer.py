"""InstantIR's Previewer: a low-rank adapter of the U-Net, its image branch and the Resampler, as published.

The file holds no alpha, so alpha is 1 and the adapter's scale is 1 / rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import WeightsError
from ..models.dcp import DCP
from ..models.lora_switch import Factors
from .files import require_exact

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

RANK = 64
# Suffixes of the adapted layers, whole dotted components.
TARGETS = (
    "to_q", "to_kv", "0.to_out", "attn1.to_k", "attn1.to_v", "to_k_ip", "to_v_ip", "ln_k_ip.linear", "ln_v_ip.linear", "to_out.0",
    "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv",
    "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
RESAMPLER = "encoder_hid_proj.image_projection_layers.0."
_IMAGE_BRANCH = re.compile(r"(?:\.processor)?\.((?:to|ln)_[kv]_ip\b.*)$")
_SUFFIX = re.compile(r"\.(lora_A|lora_B|lora\.down|lora\.up)\.weight$")
_FIRST = ("lora_A", "lora.down")


def previewer_factors(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, dcp: DCP, rank: int, where: str) -> dict[str, Factors]:
    """The adapter's factors by the name of the layer, below `unet.` or `dcp.`.

    Raises WeightsError naming the first tensors that are missing, unknown or misshapen: every target has both factors.
    """
    branches = {name.removesuffix(".processor"): str(index) for index, name in enumerate(unet.attn_processors)}
    named = {_name_of(name, branches, where): tensor for name, tensor in tensors.items()}
    layers = dict(_targets(unet, dcp))
    expected = {}
    for name, layer in layers.items():
        outputs, *inputs = layer.weight.shape
        expected[f"{name}.first"] = (rank, *inputs)
        expected[f"{name}.second"] = (outputs, rank, *[1] * (len(inputs) - 1))
    require_exact(expected, named, where)
    return {name: Factors(named[f"{name}.first"], named[f"{name}.second"]) for name in layers}


def _targets(unet: nn.Module, dcp: nn.Module) -> Iterator[tuple[str, Any]]:
    for part, network in (("unet", unet), ("dcp", dcp)):
        for name, layer in network.named_modules(prefix=part):
            if ".processor." not in name and any(name.endswith(f".{target}") for target in TARGETS):
                yield name, layer


def _name_of(name: str, branches: Mapping[str, str], where: str) -> str:
    """`unet.a.b.lora_A.weight` or `...lora.down.weight` -> `unet.a.b.first`; the image branch and the Resampler are the DCP's."""
    found = _SUFFIX.search(name)
    if found is None or not name.startswith("unet."):
        raise WeightsError(f"tensor {name} is no factor of a low-rank adapter.", where=where, way_out="Choose the Previewer's file.")
    layer = name[: found.start()].removeprefix("unet.")
    image = _IMAGE_BRANCH.search(layer)
    if layer.startswith(RESAMPLER):
        layer = f"dcp.image_proj.{layer.removeprefix(RESAMPLER)}"
    elif image:
        layer = f"dcp.ip_adapter.{branches.get(layer[: image.start()], layer[: image.start()])}.{image[1]}"
    else:
        layer = f"unet.{layer}"
    return f"{layer}.{'first' if found[1] in _FIRST else 'second'}"
