"""InstantIR's parts as they are loaded and wired one by one: what sees the degraded picture, and what looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..models.dcp import DCP
from ..models.lora_switch import Factors

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import Dinov2Model


@dataclass(frozen=True)
class Perceptor:
    """The Degradation Content Perceptor whole, Resampler and attentions, with its image encoder: the DCP socket."""

    name: str
    dcp: DCP
    encoder: Dinov2Model


@dataclass(frozen=True)
class LqContext:
    """What the Perceptor saw of degraded pictures: the LQ_CONTEXT socket.

    tokens [B, 1 + n, D] and blank [1, 1 + n, D]: the encoder's, of the pictures and of none. weights: how much they count in the
    cross-attentions (w of eq. 3): one for all, or one per level that has them, fine to coarse.
    """

    perceptor: Perceptor
    tokens: Tensor
    blank: Tensor
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Previewer:
    """An adapter that turns the U-Net into a one-step generator: the PREVIEWER socket.

    factors: its low-rank factors by the name of the layer, below `unet.` or `dcp.`, for networks that it must fit (raises
    WeightsError); scale: of their product. merged: keep adapted weights beside the plain ones, for speed.
    """

    name: str
    factors: Callable[[UNet2DConditionModel, DCP], dict[str, Factors]]
    scale: float
    merged: bool = False
