"""InstantIR's parts by name: the published files in `kintsugi/instantir`, other files of that form, or the embedded ones."""

from __future__ import annotations

from pathlib import Path

from ..methods.instantir_parts import Perceptor, Previewer
from ..models.aggregator import Aggregator
from ..models.offload import Offload, place, spared
from ..runtime import DTYPES, current_host
from . import embedded
from .instantir_aggregator import read_aggregator
from .instantir_dcp import read_dcp
from .instantir_encoder import dinov2_configs, load_encoder
from .instantir_layouts import Part, may_hold
from .locations import chosen_file, find_files, find_weights
from .previewer import read_previewer

FOLDER = "instantir/"
LORAS = "loras/"
PUBLISHED: dict[Part, str] = {
    "DCP": f"{FOLDER}adapter.safetensors",
    "Previewer": f"{FOLDER}previewer_lora_weights.safetensors",
    "Aggregator": f"{FOLDER}aggregator.safetensors",
}


def perceptor_choices() -> list[str]:
    """What the weights widget of Load DCP offers: auto, embedded, then the DCPs in `kintsugi/instantir`."""
    return ["auto", "embedded", *_files_of("DCP")]


def encoder_choices() -> list[str]:
    """What the encoder widget of Load DCP offers: auto, then the DINOv2 folders in `kintsugi` and `clip_vision`."""
    return ["auto", *dinov2_configs()]


def previewer_choices() -> list[str]:
    """What Load Previewer offers: auto, embedded, the adapters in `kintsugi/instantir`, then all of `loras`."""
    return ["auto", "embedded", *_files_of("Previewer"), *(f"{LORAS}{name}" for name in find_files("loras"))]


def aggregator_choices() -> list[str]:
    """What Load Aggregator offers: auto, embedded, then the Aggregators in `kintsugi/instantir`."""
    return ["auto", "embedded", *_files_of("Aggregator")]


def load_perceptor(weights: str = "auto", encoder: str = "auto", dtype: str = "auto") -> Perceptor:
    """The DCP with its image encoder on the host's device.

    weights: a name of perceptor_choices(); encoder: one of encoder_choices(); `auto` is the published DCP where it is there, else the
    embedded one, and the encoder that the DCP's file holds, else DINOv2-large. dtype: `auto` (the host's), fp32, bf16, fp16.
    Raises WeightsError, for an encoder of another width too, and OutOfMemoryError.
    """
    path, chosen = part_file("DCP", weights), DTYPES.get(dtype, current_host().dtype)
    file = read_dcp(path, chosen)
    network = load_encoder(encoder, file.encoder, file.dcp.image_proj.config.embedding_dim, chosen)
    return Perceptor(path.stem, place(file.dcp, chosen), network)


def load_previewer(weights: str = "auto", merged: bool = False) -> Previewer:
    """The adapter in memory. weights: a name of previewer_choices(), `auto` as for the DCP; merged: keep adapted weights beside the
    prior's own. Raises WeightsError; whether it fits a prior shows when the two meet."""
    path = find_weights("loras", weights.removeprefix(LORAS)) if weights.startswith(LORAS) else part_file("Previewer", weights)
    return read_previewer(path, merged)


def load_aggregator(weights: str = "auto", dtype: str = "auto", offload: Offload = "none") -> Aggregator:
    """The Aggregator on the host's device. weights: a name of aggregator_choices(), `auto` as for the DCP; dtype: as of the DCP.
    Raises WeightsError, for ControlNets and encoders of another U-Net too, and OutOfMemoryError."""
    chosen = DTYPES.get(dtype, current_host().dtype)
    return place(read_aggregator(part_file("Aggregator", weights), chosen), chosen, spared(offload))


def _files_of(part: Part) -> list[str]:
    return [name for name, path in find_files("kintsugi").items() if name.startswith(FOLDER) and may_hold(part, path)]


def part_file(part: Part, weights: str) -> Path:
    """Where a part is, by a name of its choices. Raises WeightsError."""
    return chosen_file(f"InstantIR's {part}", weights, PUBLISHED[part], embedded.INSTANTIR[part])
