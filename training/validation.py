"""A picture of where a run stands: rows of crops, one column per stage of processing."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..core.imaging.contact_sheet import contact_sheet


def save_grid(path: Path, columns: dict[str, Tensor]) -> dict[str, float]:
    """Write the columns (each [B, 3, S, S] in 0..1) side by side and return the PSNR in dB of each against `high_quality`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = {name: column.float().clamp(0, 1).cpu() for name, column in columns.items()}
    rows = torch.stack(list(pictures.values()), dim=1).flatten(0, 1).permute(0, 2, 3, 1)
    grid = contact_sheet(rows, columns=len(pictures))[0]
    Image.fromarray((grid * 255).round().byte().numpy()).save(path)
    target = pictures["high_quality"]
    return {name: psnr(column, target) for name, column in pictures.items() if name != "high_quality"}


def psnr(pictures: Tensor, target: Tensor) -> float:
    """Mean over the batch of 10 log10(1 / mse), in dB."""
    errors = ((pictures - target) ** 2).mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(errors)).mean())
