"""DINOv2, which sees degraded pictures for InstantIR's DCP: a local folder in transformers' layout, or part of a DCP's file of ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import WeightsError
from ..models.offload import place
from ..runtime import current_host
from .diffusers_folders import find_network_folders, read_config, read_network_folder
from .files import NetworkFile

if TYPE_CHECKING:
    from transformers import Dinov2Model

log = logging.getLogger("kintsugi")

FOLDER_KINDS = ("kintsugi", "clip_vision")
USUAL = "kintsugi/instantir/dinov2-large"
MODEL_TYPE = "dinov2"
FETCH = (
    "InstantIR's release takes facebook/dinov2-large (kintsugi models fetch dinov2-large) in kintsugi/instantir/dinov2-large; "
    "choose auto there, or embedded as the DCP."
)


def dinov2_configs() -> dict[str, dict[str, Any]]:
    """Configurations of the DINOv2 folders in `kintsugi` and `clip_vision`, by `<kind>/<name>`; the log names those that cannot be
    read."""
    found = {}
    for name, folder in _network_folders().items():
        try:
            config = read_config(folder)
        except WeightsError as error:
            log.warning("Passed over while looking for DINOv2: %s", error)
            continue
        if config.get("model_type") == MODEL_TYPE:
            found[name] = config
    return found


def load_encoder(name: str, own: NetworkFile | None, width: int, dtype: torch.dtype) -> Dinov2Model:
    """The image encoder on the host's device, for a DCP that takes tokens of that width.

    name: a folder, or `auto`: what the DCP's file holds, else the usual folder, else another DINOv2 that fits. Raises WeightsError
    for folders of another network or width.
    """
    if name == "auto" and own is not None:
        _require_encoder(own.config, width, own.where)
        return place(encoder_of(own, dtype), dtype)
    folder = _usual_or_fitting(width) if name == "auto" else _named(name)
    _require_encoder(read_config(folder), width, str(folder))
    return place(encoder_of(read_network_folder(folder), dtype), dtype)


def encoder_of(file: NetworkFile, dtype: torch.dtype) -> Dinov2Model:
    """The network of these tensors, published names. Raises WeightsError naming the first that is missing, unknown or misshapen."""
    from transformers import Dinov2Config, Dinov2Model

    read: Any = Dinov2Model.from_pretrained
    # Versions of transformers name its layers differently; the published names are what each of them reads.
    model, report = read(
        None,
        config=Dinov2Config.from_dict(file.config),
        state_dict=file.tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    faults = [f"tensor {name} is {list(found)}, expected {list(expected)}" for name, found, expected in sorted(report["mismatched_keys"])]
    faults += [f"tensor {name} is missing" for name in sorted(report["missing_keys"])]
    faults += [f"tensor {name} is unknown" for name in sorted(report["unexpected_keys"])]
    if faults:
        raise WeightsError("; ".join(faults[:3]) + ".", where=file.where, way_out="Copy the folder of the release again.")
    network: Dinov2Model = model
    return network


def _network_folders() -> dict[str, Path]:
    return {f"{kind}/{name}": folder for kind in FOLDER_KINDS for name, folder in find_network_folders(kind).items()}


def _named(name: str) -> Path:
    folders = _network_folders()
    if name not in folders:
        listed = ", ".join(folders) or "none"
        raise WeightsError(f"there is no image encoder {name!r}.", way_out=f"Found: {listed}. Choose one of them, or auto.")
    return folders[name]


def _usual_or_fitting(width: int) -> Path:
    folders = _network_folders()
    fitting = (name for name, config in dinov2_configs().items() if config.get("hidden_size") == width)
    chosen = USUAL if USUAL in folders else next(fitting, None)
    if chosen is None:
        searched = ", ".join(str(folder) for kind in FOLDER_KINDS for folder in current_host().folders.of_models(kind))
        raise WeightsError(f"found no DINOv2 with tokens {width} wide, searched {searched}.", way_out=FETCH)
    log.info("Image encoder of InstantIR's DCP: %s.", chosen)
    return folders[chosen]


def _require_encoder(config: dict[str, Any], width: int, where: str) -> None:
    kind, found = config.get("model_type"), config.get("hidden_size")
    if kind != MODEL_TYPE:
        raise WeightsError(f"holds a {kind}, expected {MODEL_TYPE}.", where=where, way_out=FETCH)
    if found != width:
        raise WeightsError(f"its tokens are {found} wide, the DCP takes {width}.", where=where, way_out=FETCH)
