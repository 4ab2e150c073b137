"""The PRIOR socket: what restorers of one family share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..diffusion import NoiseSchedule
from ..errors import BadValueError
from .codec import LatentCodec
from .offload import Offload
from .prompt import PromptEmbedding, PromptEncoder

log = logging.getLogger("kintsugi")


@dataclass(frozen=True)
class Prior:
    """family: sd3, sd21-vae16, pixart-alpha, sdxl, flux; codec: the VAE with the numbers of its latents.

    denoiser: reads the family's network at its first call and keeps it; None where only latents are wanted. schedule: what the
    denoiser was trained with; None where a one-step method brings its own. dtype, offload: how the denoiser computes and where its
    weights wait. largest_side: latent pixels along a side of what the denoiser was trained on, beyond which its positions mean nothing
    to it; None where there is no bound.
    """

    family: str
    codec: LatentCodec
    denoiser: Callable[[], nn.Module] | None = None
    prompt_encoder: PromptEncoder | None = None
    schedule: NoiseSchedule | None = None
    dtype: torch.dtype = torch.float32
    offload: Offload = "none"
    largest_side: int | None = None

    def bounded(self, tile: int) -> int:
        """The tile to begin with, in pixels along a side: as asked for, or the largest that the denoiser was trained on."""
        largest = tile if self.largest_side is None else min(tile, self.largest_side * self.codec.downscale)
        if largest < tile:
            log.info("Prior %s: in tiles of %d pixels, the largest that it was trained on.", self.family, largest)
        return largest

    def encode_prompt(self, text: str) -> PromptEmbedding:
        """The embedding of a prompt. Raises BadValueError when the prior came without text encoders."""
        if self.prompt_encoder is None:
            raise BadValueError(
                "this prior has no text encoders, so it cannot read a prompt.",
                where=self.family,
                way_out="Leave the prompt empty, or load the prior from a diffusers folder with text_encoder and tokenizer.",
            )
        return self.prompt_encoder(text)
