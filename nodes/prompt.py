"""Prompts for restorers that read some, in ComfyUI's own form: [[tokens [1, L, D], {"pooled_output": [1, P]}]]."""

from __future__ import annotations

import logging
from typing import Any

from ..core.errors import BadValueError
from ..core.models.prior import Prior
from ..core.models.prompt import PromptEmbedding
from .caption import CATEGORY
from .sockets import PRIOR, InputTypes, socket, text

log = logging.getLogger("kintsugi")

Conditioning = list[list[Any]]

POSITIVE = (
    "a crisp, richly detailed photograph, true-to-life textures, fine strands of hair and fibres of fabric, natural skin, clean edges, "
    "balanced contrast, wide dynamic range, faithful colours, shot on a full-frame camera with a sharp lens"
)
NEGATIVE = (
    "blur, haze, defocus, smeared or waxy surfaces, noise, compression blocks, ringing, moire, painted, drawn, rendered, cartoon, "
    "distorted shapes, watermark, lettering, poor quality"
)
# What ComfyUI's nodes attach to say where, when or beside what a prompt holds; here it holds for the whole picture and run.
UNHONOURED = (
    "area", "mask", "strength", "start_percent", "end_percent", "control", "gligen", "hooks", "concat_latent_image", "unclip_conditioning",
)  # fmt: skip


def as_conditioning(prompt: PromptEmbedding) -> Conditioning:
    """What ComfyUI's samplers, too, would take."""
    return [[prompt.tokens, {} if prompt.pooled is None else {"pooled_output": prompt.pooled}]]


def as_prompt(conditioning: Conditioning, where: str) -> PromptEmbedding:
    """Of this node's output, or of ComfyUI's text encoders.

    The first entry counts, and the log tells of others; sizes in it do not, since the picture's own are taken. Raises
    BadValueError for one that holds in a part of the picture or the run alone.
    """
    if not conditioning:
        raise BadValueError("it holds no prompt.", where=where, way_out="Connect Encode Prompt.")
    tokens, told = conditioning[0]
    unhonoured = [name for name in UNHONOURED if name in told]
    if unhonoured or tokens.shape[0] != 1:
        found = ", ".join(unhonoured) or f"{tokens.shape[0]} prompts in one"
        raise BadValueError(f"it comes with {found}.", where=where, way_out="Connect a prompt that holds for the whole picture and run.")
    if len(conditioning) > 1:
        log.warning("%s: the first of %d prompts is taken, the others are left out.", where, len(conditioning))
    return PromptEmbedding(tokens, told.get("pooled_output"))


class KintsugiEncodePrompt:
    DISPLAY_NAME = "Encode Prompt (prior's text encoders)"
    DESCRIPTION = "Turn what a picture should and should not be like into what a prior reads."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["CLIP text encode", "positive", "negative", "SDXL prompt", "conditioning"]
    RETURN_TYPES, RETURN_NAMES, FUNCTION = ("CONDITIONING", "CONDITIONING"), ("positive", "negative"), "encode"
    OUTPUT_TOOLTIPS = ("What the picture should be like.", "What it should not be like, for guidance.")

    @classmethod
    def INPUT_TYPES(cls) -> InputTypes:  # noqa: N802
        return {
            "required": {
                "prior": socket(PRIOR, "The prior that will read the prompts, with its text encoders."),
                "positive": text(POSITIVE, "What the picture should be like; say what it shows to steer what is restored.", multiline=True),
                "negative": text(NEGATIVE, "What the picture should not be like.", multiline=True),
            }
        }

    def encode(self, prior: Prior, positive: str, negative: str) -> tuple[Conditioning, Conditioning]:
        return as_conditioning(prior.encode_prompt(positive)), as_conditioning(prior.encode_prompt(negative))


NODES = (KintsugiEncodePrompt,)
