"""What the engine asks of a stage: modules, losses for a batch, pictures to look at, and the files the nodes load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class Stage(Protocol):
    """One training stage of one paper. Built from the recipe's `settings`; unknown settings are errors."""

    trained: nn.Module
    frozen: list[nn.Module]

    def losses(self, model: nn.Module, batch: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
        """Unweighted scalar losses of a batch, those named in `wanted`; model is `trained`, possibly wrapped."""

    def output(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pictures [B, 3, H, W] in 0..1 for the validation grid by column title, the target under `high_quality`."""

    def export(self, model: Any, folder: Path, card: str) -> list[Path]:
        """Write what the nodes load and its model card; returns the files."""
