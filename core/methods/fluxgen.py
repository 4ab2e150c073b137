"""FluxGen: pictures to train on, squeezed out of Flux itself, and degraded versions of them.

"Acquire and then Adapt: Squeezing out Text-to-Image Model for Image Restoration" (arXiv 2504.15159). Flux draws from an empty prompt,
1024 x 768 pixels, guidance 4, 20 steps; a centre crop of one of three shapes is kept; what passes core.selection is degraded by
Real-ESRGAN's second-order model with the settings of SeeSR. Record k is a function of its own seed alone, seed + k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..degradation.pipeline import Parameters, degrade
from ..degradation.steps import Quantise, Sharpen
from ..diffusion import flux_sigmas
from ..errors import BadValueError
from ..models.controlled_flux import controlled
from ..models.flux_tokens import PATCH
from ..models.prior import Prior
from ..randomness import draw_noise, picture_generators, seed_for
from ..runtime import current_host, require_finite, rows_per_call, with_smaller_tiles
from .coding import decode_latent
from .fluxir import Options, flux_told, plan_latent, sample

# Shares of the width that a crop keeps: 1024, 768 and 512 of 1024 pixels, the height always whole.
CROP_SHARES = (1.0, 0.75, 0.5)
# Pixels along a side of one of Flux's tokens.
MULTIPLE = 16
# SeeSR sharpens a picture first, for both sides of the pair; then follows this model.
DEGRADATION = "real-esrgan"
DECODED_WHOLE = 1024


@dataclass(frozen=True)
class Drawing:
    """width, height: pixels, multiples of 16 (else BadValueError); guidance: the scale that Flux is told."""

    width: int = 1024
    height: int = 768
    steps: int = 20
    guidance: float = 4.0

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if side < MULTIPLE or side % MULTIPLE:
                nearest = max(1, round(side / MULTIPLE)) * MULTIPLE
                raise BadValueError(
                    f"the {name} is {side} pixels, expected a multiple of {MULTIPLE}.", where="FluxGen", way_out=f"Choose {nearest}."
                )


@dataclass(frozen=True)
class Pair:
    """high_quality [1, H, W, 3] and low_quality [1, H // scale, W // scale, 3] in 0..1 at 8-bit levels; replaying the parameters on
    the first gives the second to the bit."""

    high_quality: Tensor
    low_quality: Tensor
    parameters: Parameters


def generate(prior: Prior, prompt: str, seed: int, drawing: Drawing, count: int = 1) -> Tensor:
    """Pictures [count, H, W, 3] in 0..1 that Flux draws from noise; picture i uses seed + i, as if it were drawn alone.

    Raises BadValueError for a prior that is no Flux, OutOfMemoryError when a picture does not fit the device.
    """
    (flux, embedding), device, downscale = flux_told(prior, prompt), current_host().device, prior.codec.downscale
    height, width = drawing.height // downscale, drawing.width // downscale
    noise = draw_noise(picture_generators(seed, count), (prior.codec.channels, height, width)).to(device)
    progress = current_host().progress(drawing.steps, "Drawing")

    def run(pixels: int) -> Tensor:
        plan = plan_latent(noise, pixels // downscale)
        sigmas = flux_sigmas(drawing.steps, plan[0].height * plan[0].width // PATCH**2).to(device)
        z = noise
        for state in sample(network, noise, None, embedding, sigmas, Options(drawing.steps, drawing.guidance), plan):
            z = state
            progress.advance()
        return z

    tile = prior.bounded(max(drawing.width, drawing.height))
    with rows_per_call(1), controlled(flux, dtype=prior.dtype) as network:
        # Never in smaller tiles than the prior knows: each would become a picture of its own.
        latent = with_smaller_tiles(run, tile, tile)
    require_finite(latent, "What Flux drew")
    return decode_latent(prior, latent, DECODED_WHOLE).cpu()


def draw_record(prior: Prior, prompt: str, seed: int, drawing: Drawing) -> Tensor:
    """One picture [1, H, w, 3] for the pool: drawn, and cut to a shape of its own."""
    return random_crop(generate(prior, prompt, seed, drawing), seed)


def random_crop(picture: Tensor, seed: int) -> Tensor:
    """The middle of a picture [1, H, W, 3] at whole height, as wide as one of CROP_SHARES says, in whole tokens; the seed chooses."""
    width = picture.shape[2]
    (generator,) = picture_generators(seed_for(seed, "crop"), 1)
    share = CROP_SHARES[int(torch.randint(len(CROP_SHARES), (), generator=generator))]
    kept = max(1, int(width * share) // MULTIPLE) * MULTIPLE
    left = (width - kept) // 2
    return picture[:, :, left : left + kept]


def make_pair(picture: Tensor, seed: int, scale: int = 4) -> Pair:
    """A picture [1, H, W, 3] in 0..1, sharpened as SeeSR does, and a version `scale` times smaller as the record's seed degrades it.

    A restorer sees the small one enlarged again, bicubically, to the size of the other.
    """
    sharp = Quantise().apply(Sharpen().apply(picture.movedim(3, 1)))
    degraded = degrade(sharp, DEGRADATION, scale, seed_for(seed, "degradation"))
    return Pair(sharp.movedim(1, 3), degraded.low_quality.movedim(1, 3), degraded.parameters[0])
