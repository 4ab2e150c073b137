"""Stable Diffusion 2.1's U-Net made one of 16 latent channels: only its first and last convolution change (GenDR, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..core.diffusion import Prediction
from ..core.errors import WeightsError
from ..core.models.prompt import PromptEncoder
from ..core.weights.diffusers_folders import find_diffusers_folders, read_json, read_network_folder
from ..core.weights.files import NetworkFile
from ..core.weights.gendr import FAMILY
from ..core.weights.text_encoders import has_text_encoders, prompt_encoder

KIND = "diffusers"
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class Source:
    """What a U-Net begins as. prediction: what it tells of z_t; prompts: the encoder of its captions."""

    unet: NetworkFile
    prediction: Prediction
    prompts: PromptEncoder


def read_source(name: str, channels: int) -> Source:
    """The U-Net of a diffusers folder, widened, with its text encoder. name: a folder, or one below `diffusers` in the models folder.
    Raises WeightsError."""
    folder = _folder(name)
    if not has_text_encoders(folder, FAMILY):
        raise WeightsError("has no text_encoder and tokenizer.", where=str(folder), way_out="Copy the folder again, whole.")
    told = read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    if told not in PREDICTIONS:
        raise WeightsError(f"predicts {told!r}, expected {' or '.join(PREDICTIONS)}.", where=str(folder), way_out="Choose another base.")
    file = read_network_folder(folder / "unet")
    config = {name: value for name, value in file.config.items() if not name.startswith("_")}
    widened = {**config, "in_channels": channels, "out_channels": channels}
    return Source(NetworkFile(widen(file.tensors, channels), widened, file.where), PREDICTIONS[told], prompt_encoder(folder, FAMILY))


def widen(tensors: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A U-Net's tensors for `channels` latent channels, a multiple of those it has: each kernel is repeated, and the first's divided by
    the number of times, so that a latent that repeats its channels gives what it gave, repeated."""
    times = channels // tensors["conv_in.weight"].shape[1]
    changed = {
        "conv_in.weight": tensors["conv_in.weight"].repeat(1, times, 1, 1) / times,
        "conv_out.weight": tensors["conv_out.weight"].repeat(times, 1, 1, 1),
        "conv_out.bias": tensors["conv_out.bias"].repeat(times),
    }
    return {**tensors, **changed}


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    found = {f"{KIND}/{below}": place for below, place in find_diffusers_folders(KIND).items()}
    if name not in found:
        way_out = f"Put stable-diffusion-2-1-base into {KIND}, or give its path. Found: {', '.join(found) or 'none'}."
        raise WeightsError(f"there is no folder {name!r}.", way_out=way_out)
    return found[name]
