"""What a configuration or tensors tell of a Flux transformer: which of the models of that name it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# A token is 2 x 2 latent pixels of 16 channels; FLUX.1's tools take a second latent, and a mask, beside it.
CHANNELS = 64
_TOOLS = {2 * CHANNELS: "FLUX.1 Canny or Depth", 6 * CHANNELS: "FLUX.1 Fill"}
_FLUX_1 = "FLUX.1"
_CLASSES = {"FluxTransformer2DModel": _FLUX_1, "Flux2Transformer2DModel": "FLUX.2", "ChromaTransformer2DModel": "Chroma"}


@dataclass(frozen=True)
class FluxTraits:
    """model: FLUX.1, FLUX.2 or Chroma; channels: of its packed input; has_guidance: whether it is told a guidance scale, which
    FLUX.1-schnell is not."""

    model: str
    channels: int
    has_guidance: bool

    @property
    def is_flux_1(self) -> bool:
        """FLUX.1-dev, -schnell, or a model tuned from one, without further inputs."""
        return self.model == _FLUX_1 and self.channels == CHANNELS

    def __str__(self) -> str:
        model = _TOOLS.get(self.channels, self.model) if self.model == _FLUX_1 else self.model
        return f"{model} ({self.channels} input channels)"


def flux_in_config(config: Mapping[str, Any]) -> FluxTraits | None:
    """Of a folder's config.json; None for one of another class."""
    model = _CLASSES.get(config.get("_class_name", ""))
    return None if model is None else replace(flux_of(config), model=model)


def flux_of(config: Mapping[str, Any]) -> FluxTraits:
    """Of what a FluxTransformer2DModel is built from."""
    return FluxTraits(_FLUX_1, config.get("in_channels", CHANNELS), bool(config.get("guidance_embeds")))


def flux_in_tensors(shapes: Mapping[str, Sequence[int]]) -> FluxTraits | None:
    """Of a whole transformer's tensors, original or diffusers names; None for another network, such as a ControlNet of Flux."""
    first = shapes.get("img_in.weight") or shapes.get("x_embedder.weight")
    last = {"final_layer.linear.weight", "proj_out.weight"} & shapes.keys()
    if first is None or not last or not _has_blocks(shapes):
        return None
    has_guidance = any(name.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for name in shapes)
    return FluxTraits(_model_of(shapes), first[1], has_guidance)


def _has_blocks(shapes: Mapping[str, Sequence[int]]) -> bool:
    """FLUX.1's layers of both kinds of blocks, or those of its descendants."""
    return any(name.startswith(("single_blocks.0.linear1.", "single_transformer_blocks.0.")) for name in shapes)


def _model_of(shapes: Mapping[str, Sequence[int]]) -> str:
    """By what replaced FLUX.1's modulation in every block: one for all of them, or a network that guesses them."""
    if any(name.startswith(("double_stream_modulation_img.", "time_guidance_embed.")) for name in shapes):
        return "FLUX.2"
    return "Chroma" if any(name.startswith("distilled_guidance_layer.") for name in shapes) else _FLUX_1
