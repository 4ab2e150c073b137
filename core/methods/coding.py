"""Pictures to latents and back for graphs: whole or in feathered tiles, any size."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor

from ..errors import BadValueError
from ..imaging.padding import pad_to_multiple, plan_windows
from ..imaging.tiling import blend_tiles
from ..models.prior import Prior
from ..runtime import current_host, require_finite, with_smaller_tiles

OVERLAP = 64
SMALLEST_TILE = 64


def encode_picture(prior: Prior, pictures: Tensor, tile: int) -> Tensor:
    """Scaled latent [B, C, h, w] of pictures [B, H, W, 3] in 0..1; sides grow to whole latent pixels by reflection.

    tile: pixels per tile side; the posterior's mode is taken.
    """
    require_finite(pictures, "The picture")
    codec, device = prior.codec, current_host().device
    planes = pad_to_multiple(pictures.permute(0, 3, 1, 2), codec.downscale)

    def run(size: int) -> Tensor:
        plan = plan_windows(planes, size, OVERLAP, codec.downscale)
        return blend_tiles(lambda window, _: codec.encode(window.to(device)), planes, plan, Fraction(1, codec.downscale), "Encoding")

    return with_smaller_tiles(run, tile, SMALLEST_TILE)


def decode_latent(prior: Prior, latent: Tensor, tile: int) -> Tensor:
    """Pictures [B, H, W, 3] in 0..1 of a scaled latent [B, C, h, w]. tile: pixels per tile side."""
    codec, device = prior.codec, current_host().device
    if latent.ndim != 4 or latent.shape[1] != codec.channels:
        raise BadValueError(
            f"the latent is {list(latent.shape)}, expected [batch, {codec.channels}, height, width].",
            where=prior.family, way_out="Decode with the prior that encoded it.",
        )  # fmt: skip
    require_finite(latent, "The latent")

    def run(size: int) -> Tensor:
        plan = plan_windows(latent, size // codec.downscale, OVERLAP // codec.downscale, 1)
        return blend_tiles(lambda window, _: codec.decode(window.to(device)), latent, plan, codec.downscale, "Decoding")

    return with_smaller_tiles(run, tile, SMALLEST_TILE).clamp_(0, 1).permute(0, 2, 3, 1)
