"""Pictures to latents and back for graphs, any size: whole where they fit a tile, else in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from ..errors import BadValueError, OutOfMemoryError
from ..imaging.padding import pad_to_multiple
from ..models.codec import as_pictures, as_pixels
from ..models.prior import Prior
from ..models.tiled_vae_exact import plan_exact, run_exact
from ..models.tiled_vae_streamed import run_streamed
from ..models.vae_layers import Coder, decoder_of, encoder_of
from ..randomness import draw_noise, picture_generators
from ..runtime import available_ram, log, require_finite, with_smaller_tiles

# exact: the result of the whole picture; its activations lie in main memory. streamed: neither that nor this.
Mode = Literal["auto", "exact", "streamed"]
MODES: tuple[Mode, ...] = get_args(Mode)

# A picture up to this much longer than a tile is coded whole.
SPARE = 64
SMALLEST_TILE = 64
EXACT_PIXELS = 2**24
# The rest of main memory is for the tiles at work, the result and other programs.
SHARE_OF_RAM = 0.75


def encode_picture(prior: Prior, pictures: Tensor, tile: int, mode: Mode = "auto", seed: int | None = None) -> Tensor:
    """Scaled latent [B, C, h, w] of pictures [B, H, W, 3] in 0..1; sides grow to whole latent pixels by reflection.

    tile: pixels per tile side, and mode: how the tiles come together, for pictures that do not fit one. seed: sample the VAE's
    posterior, picture i with seed + i; None takes its mean. Raises OutOfMemoryError when the smallest tile, or the activations
    of `exact`, do not fit the memory.
    """
    require_finite(pictures, "The picture")
    codec = prior.codec
    planes = pad_to_multiple(pictures.permute(0, 3, 1, 2), codec.downscale)
    height, width = planes.shape[-2:]
    shape = (codec.channels, height // codec.downscale, width // codec.downscale)
    noise = None if seed is None else draw_noise(picture_generators(seed, planes.shape[0]), shape)

    def whole() -> Tensor:
        return codec.encode(planes, noise).clone()  # No inference tensor: who gets it may write to it.

    def tiled(size: int) -> Tensor:
        return codec.latent_of(_in_tiles(encoder_of(codec.vae), as_pixels(planes), size, mode, "Encoding", height * width), noise)

    return _whole_or_tiled(whole, tiled, max(height, width), tile)


def decode_latent(prior: Prior, latent: Tensor, tile: int, mode: Mode = "auto") -> Tensor:
    """Pictures [B, H, W, 3] in 0..1 of a scaled latent [B, C, h, w]. tile, mode: see encode_picture()."""
    codec = prior.codec
    require_latent(prior, latent, "Decode with the prior that encoded it.")
    height, width = (side * codec.downscale for side in latent.shape[-2:])

    def whole() -> Tensor:
        return codec.decode(latent)

    def tiled(size: int) -> Tensor:
        return as_pictures(_in_tiles(decoder_of(codec.vae), codec.unscaled(latent), size, mode, "Decoding", height * width))

    return _whole_or_tiled(whole, tiled, max(height, width), tile).clamp(0, 1).permute(0, 2, 3, 1)


def require_latent(prior: Prior, latent: Tensor, way_out: str) -> None:
    """Raise BadValueError when it is no latent [B, C, h, w] of this prior, KintsugiError when it is not finite."""
    channels = prior.codec.channels
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise BadValueError(
            f"the latent is {list(latent.shape)}, expected [batch, {channels}, height, width].", where=prior.family, way_out=way_out
        )
    require_finite(latent, "The latent")


def _whole_or_tiled(whole: Callable[[], Tensor], tiled: Callable[[int], Tensor], longest: int, tile: int) -> Tensor:
    def run(size: int) -> Tensor:
        return whole() if longest <= size + SPARE else tiled(size)

    return with_smaller_tiles(run, tile, SMALLEST_TILE)


def _in_tiles(coder: Coder, planes: Tensor, tile: int, mode: Mode, label: str, pixels: int) -> Tensor:
    needed, free = plan_exact(coder, planes.shape, tile).kept_bytes, int(available_ram() * SHARE_OF_RAM)
    memory = f"{needed / 2**30:.1f} GiB of main memory, {free / 2**30:.1f} GiB are free"
    if mode == "auto":
        mode = "exact" if pixels <= EXACT_PIXELS and needed <= free else "streamed"
        reason = f"exact ones, for at most {EXACT_PIXELS / 1e6:.1f} megapixels, need {memory}"
        log.info("%s %.1f megapixels in %s tiles: %s.", label, pixels / 1e6, mode, reason)
    if mode == "streamed":
        return run_streamed(coder, planes, tile, label)
    if needed > free:
        way_out = "Choose tiling streamed, a smaller picture, or dtype bf16."
        raise OutOfMemoryError(f"exact tiles of this picture need {memory}.", where=label, way_out=way_out)
    return run_exact(coder, planes, tile, label)
