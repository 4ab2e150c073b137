"""JPEG as tensor operations: the simulated codec of Real-ESRGAN's pipeline, for parity and for gradients.

It differs from a real codec on purpose: the luma table is transposed, the scaled tables are not rounded, and bytes of
the borders are zeros. For training pictures the real codecs (codecs.py) are closer to the world and faster on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
YCBCR_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@dataclass(frozen=True)
class JpegCoefficients:
    """DCT coefficients divided by their quantisation step: luma [B, H/8, W/8, 8, 8], chroma [B, 2, H/16, W/16, 8, 8]."""

    luma: Tensor
    chroma: Tensor
    factors: Tensor

    def rounded(self, differentiable: bool) -> JpegCoefficients:
        """Quantised to whole steps; differentiable: by a rounding that passes gradients."""
        rounding = _soft_round if differentiable else torch.round
        return JpegCoefficients(rounding(self.luma), rounding(self.chroma), self.factors)


def simulated_jpeg(pictures: Tensor, qualities: Tensor, differentiable: bool = False) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 through 4:2:0 JPEG at each picture's quality [B], above 0 and below 100.

    differentiable: round(x) + (x - round(x))^3 instead of round(x) (Shin and Song, 2017).
    """
    height, width = pictures.shape[-2:]
    coefficients = encode(pictures, qualities).rounded(differentiable)
    return decode(coefficients)[..., :height, :width]


def encode(pictures: Tensor, qualities: Tensor) -> JpegCoefficients:
    """Coefficients before rounding; the picture is zero-padded right and below to multiples of 16."""
    height, width = pictures.shape[-2:]
    padded = functional.pad(pictures, (0, -width % 16, 0, -height % 16)) * 255
    ycbcr = _mix_channels(padded, RGB_TO_YCBCR)
    factors = _table_factors(qualities.to(pictures)).view(-1, 1, 1, 1, 1)
    luma = _dct(_blocks(ycbcr[:, 0]) - 128) / (_table(LUMA_TABLE, pictures).T * factors)
    # The chroma offset of 128 is taken away again before the transform, so neither is written.
    chroma = _dct(_blocks(functional.avg_pool2d(ycbcr[:, 1:], 2)))
    return JpegCoefficients(luma, chroma / (_table(CHROMA_TABLE, pictures) * factors[:, None]), factors)


def decode(coefficients: JpegCoefficients) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 from quantised coefficients, at the padded size."""
    luma_steps = _table(LUMA_TABLE, coefficients.luma).T * coefficients.factors
    chroma_steps = _table(CHROMA_TABLE, coefficients.chroma) * coefficients.factors[:, None]
    luma = _joined(_inverse_dct(coefficients.luma * luma_steps)) + 128
    chroma = _joined(_inverse_dct(coefficients.chroma * chroma_steps))
    chroma = chroma.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    rgb = _mix_channels(torch.cat([luma[:, None], chroma], dim=1), YCBCR_TO_RGB)
    return rgb.clamp(0, 255) / 255


def _table_factors(qualities: Tensor) -> Tensor:
    return torch.where(qualities < 50, 5000 / qualities, 200 - 2 * qualities) / 100


def _table(rows: tuple[tuple[int, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _mix_channels(pictures: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    weights = torch.tensor(matrix, dtype=pictures.dtype, device=pictures.device)
    return functional.conv2d(pictures, weights[:, :, None, None])


def _blocks(plane: Tensor) -> Tensor:
    """[..., H, W] -> [..., H/8, W/8, 8, 8]."""
    *lead, height, width = plane.shape
    return plane.reshape(*lead, height // 8, 8, width // 8, 8).transpose(-3, -2)


def _joined(blocks: Tensor) -> Tensor:
    """[..., h, w, 8, 8] -> [..., 8h, 8w]."""
    *lead, rows, columns, _, _ = blocks.shape
    return blocks.transpose(-3, -2).reshape(*lead, rows * 8, columns * 8)


def _dct_matrix(like: Tensor) -> Tensor:
    """Orthonormal DCT-II: row u, column x."""
    place = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * place[None, :] + 1) * place[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


def _dct(blocks: Tensor) -> Tensor:
    matrix = _dct_matrix(blocks)
    return matrix @ blocks @ matrix.T


def _inverse_dct(blocks: Tensor) -> Tensor:
    matrix = _dct_matrix(blocks)
    return matrix.T @ blocks @ matrix


def _soft_round(values: Tensor) -> Tensor:
    nearest = torch.round(values).detach()
    return nearest + (values - nearest) ** 3
