"""BLIP from folders in transformers' layout below `kintsugi/captioner`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..methods.captioning import Captioner
from ..runtime import current_host
from .diffusers_folders import find_network_folders, read_config
from .text_networks import read_encoder, read_tokenizer

FOLDER = "captioner"
NONE = "none found"


def captioner_choices() -> list[str]:
    """What the weights widget of Load Captioner offers: the folders found, or one entry that says there is none."""
    return list(_places()) or [NONE]


def load_captioner(weights: str) -> Captioner:
    """The captioner of a folder of captioner_choices(), on the host's device in its dtype. Raises WeightsError."""
    from transformers import BlipForConditionalGeneration

    places = _places()
    if weights not in places:
        folders = ", ".join(str(folder / FOLDER) for folder in current_host().folders.of_models("kintsugi"))
        raise WeightsError(
            f"there is no captioner {weights!r}, searched {folders}.",
            way_out="Put a BLIP folder there, such as blip-image-captioning-base with config.json, model.safetensors, "
            "preprocessor_config.json and the tokenizer's files.",
        )
    place = places[weights]
    kind = read_config(place).get("model_type")
    if kind != "blip":
        raise WeightsError(f"holds a {kind}, expected blip.", where=str(place), way_out="Choose the folder of a BLIP captioner.")
    processor, tokenizer = _read_image_processor(place), read_tokenizer(place)
    return Captioner(Path(weights).name, read_encoder(BlipForConditionalGeneration, place), processor, tokenizer)


def _places() -> dict[str, Path]:
    """Folders with a config.json by their name below the models folder."""
    return {name: place for name, place in find_network_folders("kintsugi").items() if Path(name).parts[:1] == (FOLDER,)}


def _read_image_processor(folder: Path) -> Any:
    # The class that needs no torchvision.
    from transformers import BlipImageProcessorPil

    try:
        return BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"its image processor cannot be read ({reason}).",
            where=str(folder),
            way_out="Copy preprocessor_config.json of the release there.",
        ) from error
