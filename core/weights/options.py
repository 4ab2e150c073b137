"""What a person chooses when a one-step generator is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..models.offload import Offload

Posterior = Literal["sample", "mean"]
POSTERIORS: tuple[Posterior, ...] = get_args(Posterior)
PRESETS = ("photo", "face", "cartoon", "inpainting", "low light")


@dataclass(frozen=True)
class LoadOptions:
    """base: the prior that an adapter belongs to, by its name in the models folder, or `auto`. preset: which task
    InstaRevive's prompt names. posterior: how TSD-SR encodes. fold_constants: compute once what prompt and timestep decide.
    """

    dtype: torch.dtype = torch.float32
    offload: Offload = "none"
    base: str = "auto"
    preset: str = "photo"
    posterior: Posterior = "sample"
    fold_constants: bool = True
