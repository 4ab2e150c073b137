"""InstantIR's files: which of its parts one holds, told by the names of its tensors, and for which U-Net it was made."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..errors import WeightsError
from .inspection import tensor_shapes

Part = Literal["DCP", "Previewer", "Aggregator"]

TOGETHER = (
    "InstantIR's parts belong together: choose embedded everywhere, or put all of its files there (kintsugi models list says from where)."
)

# Containers of the DCP's two halves: as converted or saved as safetensors, and flat.
DCP_CONTAINERS = {
    "image_proj.": "image_proj.",
    "ip_adapter.": "ip_adapter.",
    "image_proj_model.": "image_proj.",
    "adapter_modules.": "ip_adapter.",
}
FACTOR = re.compile(r"\.(lora_A|lora_B|lora[._]down|lora[._]up)\.weight$")
_REFERENCE = "ref_conv_in.weight"
_CONTROLNET = "controlnet_mid_block.weight"
# A block's first convolution, its own or what an adapter adds to it; adapters of one kind have underscores for dots.
_BLOCK = re.compile(r"down_blocks[._](\d+)[._]resnets[._]0[._]conv1\.(?:lora_B\.|lora[._]up\.)?weight$")


def part_in(names: Collection[str]) -> Part | None:
    """Which part tensors of these names are; None for something else."""
    if _REFERENCE in names:
        return "Aggregator"
    if any(name.startswith(tuple(DCP_CONTAINERS)) for name in names):
        return "DCP"
    return "Previewer" if any(FACTOR.search(name) for name in names) else None


def may_hold(part: Part, path: Path) -> bool:
    """Whether a file holds that part. A damaged one may: whoever chooses it is told what is wrong with it."""
    try:
        return part_in(tensor_shapes(path)) == part
    except WeightsError:
        return True


def require_part(part: Part, names: Collection[str], where: str) -> None:
    """Raise WeightsError when tensors of these names are not that part."""
    found = part_in(names)
    if found != part:
        other = "a ControlNet" if _CONTROLNET in names else "another network"
        held = f"its {found}" if found else other
        raise WeightsError(f"is not InstantIR's {part} but {held}.", where=where, way_out=f"Choose the file of the {part}.")


def require_widths(shapes: Mapping[str, Sequence[int]], expected: Sequence[int], whose: str, where: str) -> None:
    """Raise WeightsError when tensors of these shapes were made for a U-Net whose levels, fine to coarse, have other channels.

    whose: that have the expected ones. An adapter of attentions alone does not tell.
    """
    found = {int(match[1]): shape[0] for name, shape in shapes.items() if (match := _BLOCK.search(name))}
    own = [found[level] for level in sorted(found)]
    if own and own != list(expected):
        raise WeightsError(f"is made for a U-Net of {_told(own)} channels, {whose} has {_told(expected)}.", where=where, way_out=TOGETHER)


def _told(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))
