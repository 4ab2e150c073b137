"""From a graph's mask back to the transparency of a file."""

from __future__ import annotations

from torch import Tensor

from .resize import resize


def alpha_of(mask: Tensor | None, index: int, height: int, width: int) -> Tensor | None:
    """Alpha [height, width] in 0..1 for picture `index` of a batch; None when nothing is transparent.

    mask: [B, h, w] or [h, w], 1 where transparent, of any size; a short batch repeats its last one.
    """
    if mask is None:
        return None
    planes = mask.reshape(-1, 1, *mask.shape[-2:])
    one = planes[min(index, planes.shape[0] - 1)][None]
    if not one.any():
        return None
    return 1 - resize(one, height, width, "bicubic").clamp(0, 1)[0, 0]
