"""A batch for InstantIR, picture by picture: padded for the networks, with its own noise, its own context and the prompts.

Pictures go through one after the other, so that none changes another, and noise is drawn once for every pixel of a latent, so that
tiles of a large one agree about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import BadValueError
from ..imaging.padding import pad_to_multiple, plan_windows
from ..models.aggregator import Aggregator
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from ..randomness import draw_noise, picture_generators
from ..runtime import current_host, require_finite, with_smaller_tiles
from .instantir_assembly import assembled, conditions_of, require_prompt
from .instantir_networks import Conditions, InstantIR
from .instantir_parts import LqContext, Previewer
from .instantir_tiles import TiledInstantIR

# Pixels: what SDXL was trained at, and the least that still shows what a picture is of.
TILE, SMALLEST_TILE = 1024, 128
# Neighbouring tiles share a quarter.
TILES_PER_OVERLAP = 4

Result = TypeVar("Result")


@dataclass(frozen=True)
class Picture:
    """One picture of a batch on its way through the networks.

    padded [1, C, H, W]: its latent on the device, sides in the multiple that the networks need; height, width: its own sides;
    downscale: pixels per latent pixel; tokens [1, n, D] and blank: see LqContext.
    """

    networks: InstantIR
    padded: Tensor
    height: int
    width: int
    downscale: int
    tokens: Tensor
    blank: Tensor
    noise: list[torch.Generator]

    def draw(self) -> Tensor:
        """The next standard normal noise, for the padding as well."""
        return draw_noise(self.noise, self.padded.shape[1:])

    def cropped(self, padded: Tensor) -> Tensor:
        """What belongs to the picture itself."""
        return padded[..., : self.height, : self.width]

    def conditions(self, prompts: Sequence[PromptEmbedding]) -> Conditions:
        """Of two prompts, under guidance, the first is for the unconditional row, which sees no picture."""
        tokens = self.tokens if len(prompts) == 1 else torch.cat([self.blank, self.tokens])
        height, width = self.height * self.downscale, self.width * self.downscale
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(prompts), dtype=torch.float32)
        return conditions_of(self.networks, tokens, *prompt_rows(self.networks, prompts), sizes)


def for_each_picture(
    prior: Prior,
    context: LqContext,
    previewer: Previewer,
    aggregator: Aggregator | None,
    latent: Tensor,
    seed: int,
    tile: int,
    work: Callable[[Picture, int], Result],
) -> list[Result]:
    """work(picture, index) for every latent of [B, C, h, w], picture i with the noise of seed + i.

    tile: pixels that the networks see at once along a side, fewer where the prior was trained on fewer. Where memory runs out, from
    that picture on in smaller tiles and with the same noise. Raises BadValueError for parts that do not fit, OutOfMemoryError when the
    smallest tile does not fit the device.
    """
    count, _, height, width = latent.shape
    if context.tokens.shape[0] not in (1, count):
        raise BadValueError(
            f"it is of {context.tokens.shape[0]} pictures, the latent of {count}.",
            where="lq_context",
            way_out="Perceive the pictures that were encoded, or one for all.",
        )
    downscale, tokens = prior.codec.downscale, context.tokens.expand(count, -1, -1).split(1)
    whole = downscale * max(height, width)
    done: list[Result] = []

    def run(size: int) -> list[Result]:
        with assembled(prior, context, previewer, aggregator) as networks:
            seen = networks if size >= whole else windowed(networks, latent, size // downscale)
            for index in range(len(done), count):
                noise = picture_generators(seed + index, 1)
                padded = padded_for(networks, latent[index : index + 1])
                done.append(work(Picture(seen, padded, height, width, downscale, tokens[index], context.blank, noise), index))
        return done

    return with_smaller_tiles(run, prior.bounded(min(tile, whole)), SMALLEST_TILE)


def windowed(networks: InstantIR, latent: Tensor, side: int) -> TiledInstantIR:
    """The networks asked in windows of `side` latent pixels of such a latent [B, C, h, w]."""
    overlap = side // TILES_PER_OVERLAP
    plan = plan_windows(padded_for(networks, latent[:1]), side - overlap, overlap, multiple_of(networks))
    return TiledInstantIR(networks.unet, networks.previewer, networks.aggregator, networks.schedule, plan)


def padded_for(networks: InstantIR, latent: Tensor) -> Tensor:
    """A latent [B, C, h, w] on the device, grown by reflection to sides that the networks take."""
    return pad_to_multiple(latent.to(current_host().device, torch.float32), multiple_of(networks))


def multiple_of(networks: InstantIR) -> int:
    """Latent sides must be multiples of this: what every level but one halves has to come back as large."""
    return int(2 ** (len(networks.unet.unet.config.block_out_channels) - 1))


def prompt_rows(networks: InstantIR, prompts: Sequence[PromptEmbedding]) -> tuple[Tensor, Tensor]:
    """Tokens [R, L, D] and pooled [R, P] of R prompts.

    Shorter ones are repeated up to a common length, in which attention without a mask sees no difference. Raises BadValueError
    for a prompt of another model, KintsugiError for one that is not finite.
    """
    device = current_host().device
    length = lcm(*(prompt.tokens.shape[1] for prompt in prompts))
    rows, pooled = [], []
    for prompt in prompts:
        if prompt.pooled is None:
            raise BadValueError(
                "it has no pooled output, which SDXL reads beside the tokens.",
                where="prompt",
                way_out="Encode it with Encode Prompt and this prior, or with ComfyUI's text encoders of SDXL.",
            )
        require_prompt(networks.unet.unet, prompt.tokens, prompt.pooled)
        require_finite(prompt.tokens, "The prompt")
        rows.append(prompt.tokens.to(device, torch.float32).repeat(1, length // prompt.tokens.shape[1], 1))
        pooled.append(prompt.pooled.to(device, torch.float32))
    return torch.cat(rows), torch.cat(pooled)
