"""The PRIOR socket: what restorers of one family share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import BadValueError
from .codec import LatentCodec
from .prompt import PromptEmbedding, PromptEncoder


@dataclass(frozen=True)
class Prior:
    """family: `mini`, sd3, sd21-vae16, pixart-alpha ...; codec: the VAE with the numbers of its latents.

    denoiser: reads the family's network at its first call and keeps it; None where only latents are wanted.
    """

    family: str
    codec: LatentCodec
    denoiser: Callable[[], nn.Module] | None = None
    prompt_encoder: PromptEncoder | None = None

    def encode_prompt(self, text: str) -> PromptEmbedding:
        """The embedding of a prompt. Raises BadValueError when the prior came without text encoders."""
        if self.prompt_encoder is None:
            raise BadValueError(
                "this prior has no text encoders, so it cannot read a prompt.",
                where=self.family,
                way_out="Leave the prompt empty, or load the prior from a diffusers folder with text_encoder and tokenizer.",
            )
        return self.prompt_encoder(text)
