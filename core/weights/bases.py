"""The published priors that one-step methods stand on: where their parts lie and how each is read.

A base is a diffusers folder, or a single file read by configurations that ship here.
"""

from __future__ import annotations

from typing import Protocol

from ..models.prompt import PromptEncoder
from .files import NetworkFile


class Base(Protocol):
    """A published prior in the models folder, read part by part and only when asked."""

    family: str
    name: str

    def denoiser(self) -> NetworkFile:
        """The transformer or U-Net, diffusers names."""

    def vae(self) -> NetworkFile:
        """The autoencoder, diffusers names."""

    def prompt_encoder(self) -> PromptEncoder | None:
        """None where the base has no text encoders or tokenizers."""


def base_choices() -> list[str]:
    """Names of the diffusers folders and single files in the models folders that a base can be read from."""
    return []
