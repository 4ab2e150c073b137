"""InstantIR's Previewer: a low-rank adapter of the U-Net, its image branch and the Resampler, as published; or one of the U-Net
alone, the LCM-LoRA for SDXL of the creative mode.

The published file holds no alpha, so alpha is 1 and the adapter's scale is 1 / rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import WeightsError
from ..methods.instantir_parts import Previewer
from ..models.dcp import DCP
from ..models.lora_switch import Factors
from .files import require_exact
from .instantir_layouts import TOGETHER, require_part, require_widths
from .students import read_student
from .unet_lora import factor_shapes, unet_factors

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

KIND = "previewer"
RANK = 64
# Suffixes of the adapted layers, whole dotted components.
TARGETS = (
    "to_q", "to_kv", "0.to_out", "attn1.to_k", "attn1.to_v", "to_k_ip", "to_v_ip", "ln_k_ip.linear", "ln_v_ip.linear", "to_out.0",
    "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv",
    "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
RESAMPLER = "encoder_hid_proj.image_projection_layers.0."
_IMAGE_BRANCH = re.compile(r"(?:\.processor)?\.((?:to|ln)_[kv]_ip\b.*)$")
_IMAGE_LAYER = re.compile(r"^dcp\.ip_adapter\.(\d+)")
_SUFFIX = re.compile(r"\.(lora_A|lora_B|lora\.down|lora\.up)\.weight$")
_FIRST = ("lora_A", "lora.down")


def read_previewer(path: Path, merged: bool = False) -> Previewer:
    """The adapter in a file, whose tensors are held against the networks when these are known. Raises WeightsError for other files."""
    file = read_student(path, KIND)
    require_part("Previewer", file.tensors, file.where)
    if not any(name.startswith(f"unet.{RESAMPLER}") for name in file.tensors):
        return Previewer(path.stem, partial(_text_guided, file.tensors, file.where), 1.0, merged)
    rank = next(tensor.shape[0] for name, tensor in file.tensors.items() if (found := _SUFFIX.search(name)) and found[1] in _FIRST)

    def factors(unet: UNet2DConditionModel, dcp: DCP) -> dict[str, Factors]:
        return previewer_factors(file.tensors, unet, dcp, rank, file.where)

    return Previewer(path.stem, factors, 1 / rank, merged)


def _text_guided(tensors: Mapping[str, Tensor], where: str, unet: UNet2DConditionModel, dcp: DCP) -> dict[str, Factors]:
    """Leaves the DCP as it is."""
    _require_unet(tensors, unet, where)
    return unet_factors(tensors, unet, where)


def previewer_factors(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, dcp: DCP, rank: int, where: str) -> dict[str, Factors]:
    """The adapter's factors by the name of the layer, below `unet.` or `dcp.`.

    Raises WeightsError for an adapter of networks of other widths, and naming the first tensors that are missing, unknown or
    misshapen: every target has both factors.
    """
    _require_unet(tensors, unet, where)
    branches = {name.removesuffix(".processor"): str(index) for index, name in enumerate(unet.attn_processors)}
    named = {_name_of(name, branches, where): tensor for name, tensor in tensors.items()}
    _require_resampler(named, dcp, where)
    layers = dict(previewer_targets(unet, dcp))
    expected = {}
    for name, layer in layers.items():
        expected[f"{name}.first"], expected[f"{name}.second"] = factor_shapes(layer, rank)
    require_exact(expected, named, where)
    return {name: Factors(named[f"{name}.first"], named[f"{name}.second"]) for name in layers}


def previewer_tensors(factors: Mapping[str, Factors], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """previewer_factors() undone: the tensors of a file, in published names."""
    branches = {str(index): name.removesuffix(".processor") for index, name in enumerate(unet.attn_processors)}
    tensors = {}
    for name, pair in factors.items():
        layer = _IMAGE_LAYER.sub(lambda found: f"unet.{branches[found[1]]}", name)
        layer = layer.replace("dcp.image_proj.", f"unet.{RESAMPLER}")
        tensors[f"{layer}.lora_A.weight"], tensors[f"{layer}.lora_B.weight"] = pair
    return tensors


def _require_unet(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, where: str) -> None:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    require_widths(shapes, unet.config.block_out_channels, "the prior", where)


def _require_resampler(named: Mapping[str, Tensor], dcp: DCP, where: str) -> None:
    found, expected = named.get("dcp.image_proj.proj_in.second"), dcp.image_proj.config.dim
    if found is not None and found.shape[0] != expected:
        raise WeightsError(f"is made for a Resampler {found.shape[0]} wide, the DCP's is {expected}.", where=where, way_out=TOGETHER)


def previewer_targets(unet: nn.Module, dcp: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name, below `unet.` or `dcp.`, and layer of everything that the Previewer adapts."""
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
