"""Many pictures of one size on a single sheet."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F


def contact_sheet(pictures: Tensor, columns: int, gap: int = 0) -> Tensor:
    """Pictures [B, H, W, C] row by row, `columns` of them in each row, on a white sheet [1, H', W', C].

    gap: pixels between neighbours. A batch that fills no row makes a sheet as wide as itself; what a last row lacks stays white.
    """
    count, height, width, channels = pictures.shape
    columns = min(columns, count)
    rows = ceil(count / columns)
    cells = F.pad(pictures, (0, 0, 0, gap, 0, gap), value=1.0)
    missing = cells.new_ones(rows * columns - count, *cells.shape[1:])
    grid = torch.cat([cells, missing]).view(rows, columns, height + gap, width + gap, channels).transpose(1, 2)
    sheet = grid.reshape(1, rows * (height + gap), columns * (width + gap), channels)
    return sheet[:, : sheet.shape[1] - gap, : sheet.shape[2] - gap]
