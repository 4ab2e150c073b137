"""The file of a prior that training made, with the text encoder it was trained with, as read_prior() reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..core.models.byte_text import ByteTextEncoder
from ..core.weights.families import Family
from ..core.weights.files import write_weights


def write_prior(path: Path, kind: Family, denoiser: nn.Module, config: dict[str, Any], text: ByteTextEncoder, told: dict[str, Any]) -> None:
    """In half precision. config: the denoiser's; told: what else read_prior() asks of the metadata, `text`, `vae` and, where the family
    or the training has them, `betas` and `largest_side`."""
    parts = nn.ModuleDict({kind.component: denoiser, "text": text})
    write_weights(path, dict(parts.state_dict()), {"kind": "prior", "family": kind.name, kind.component: config, **told})
