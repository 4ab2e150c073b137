"""InstantIR as a person calls it: pictures are perceived, latents of any number and size restored, and single looks ahead taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadValueError
from ..models.aggregator import Aggregator
from ..models.codec import LatentCodec
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from ..runtime import Progress, current_host, require_finite, rows_per_call
from .coding import require_latent
from .dcp_tokens import CROPS, Crop, image_tokens
from .instantir import TRAINING_STEPS, Options, Step, sample
from .instantir_networks import Look
from .instantir_parts import LqContext, Perceptor, Previewer
from .instantir_pictures import TILE, Picture, for_each_picture, padded_for

ENCODE = "Encode the picture with this prior."
# Latent pixels of a progress picture's longer side.
SHOWN_SIDE = 64


@dataclass(frozen=True)
class Restored:
    """latent [B, C, h, w]; previews [N, C, h, w]: every look ahead in the order of time, picture after picture. Where none was
    taken, previews are the restored latents."""

    latent: Tensor
    previews: Tensor


def perceive(perceptor: Perceptor, pictures: Tensor, crop: Crop = "published", weights: Sequence[float] = (1.0,)) -> LqContext:
    """What the Perceptor sees of pictures [B, H, W, 3] in 0..1.

    crop: see image_tokens(); weights: how much that counts, one number for all cross-attentions or one per level that has them, fine
    to coarse. Raises BadValueError, and KintsugiError for numbers that are not finite.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise BadValueError(f"the picture is {list(pictures.shape)}, expected [batch, height, width, 3].", where="image")
    if crop not in CROPS:
        raise BadValueError(f"there is no crop {crop!r}.", where="crop", way_out=f"Choose one of {', '.join(CROPS)}.")
    tokens, blank = image_tokens(perceptor.encoder, pictures, crop)
    require_finite(tokens, "What the image encoder sees")
    return LqContext(perceptor, tokens.clone(), blank.clone(), tuple(weights))


def parse_weights(text: str) -> tuple[float, ...]:
    """`1` or `0.5, 1`: numbers from 0 up, separated by commas. Raises BadValueError."""
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 <= weight < float("inf") for weight in weights):
        raise BadValueError(
            f"{text!r} is no list of numbers from 0 up.", where="image_weights", way_out="Write 1, or 0.5, 1 for two levels."
        )
    return weights


def restore_latent(
    prior: Prior,
    context: LqContext,
    previewer: Previewer,
    aggregator: Aggregator,
    latent: Tensor,
    positive: PromptEmbedding,
    negative: PromptEmbedding,
    seed: int,
    options: Options,
    tile: int = TILE,
    reference: Tensor | None = None,
) -> Restored:
    """Restored latents of scaled latents [B, C, h, w] of any size; picture i draws its noise with seed + i.

    context: of those pictures, or of one for all. negative: for guidance alone. tile: pixels that the networks see at once along
    a side. reference [B or 1, C, h, w]: what the Aggregator compares with instead of previews, which are then made for AdaRes
    alone. Raises BadValueError for options, prompts and parts that do not fit, KintsugiError for numbers that are not finite,
    OutOfMemoryError when the smallest tile does not fit the device.
    """
    options.check()
    require_latent(prior, latent, ENCODE)
    references = _references(prior, latent, reference)
    if reference is not None and options.adares == "off":
        options = replace(options, preview_end=options.preview_start)
    prompts = [positive] if options.guidance <= 1 else [negative, positive]
    bar = _Bar(current_host().progress(options.steps * latent.shape[0], "Restoring"), prior.codec)

    def restored(picture: Picture, index: int) -> Restored:
        other = references[index]
        compared = None if other is None else padded_for(picture.networks, other)
        with rows_per_call(len(prompts)):
            steps = sample(picture.networks, picture.padded, picture.conditions(prompts), options, picture.draw, compared)
            return _followed(steps, picture, partial(bar.show, options.steps * index))

    parts = for_each_picture(prior, context, previewer, aggregator, latent, seed, tile, restored)
    result = torch.cat([part.latent for part in parts]).to(latent.device)
    require_finite(result, "The restored latent")
    previews = torch.cat([part.previews for part in parts]).to(latent.device)
    return Restored(result, previews if previews.shape[0] else result.clone())


def look(
    prior: Prior,
    previewer: Previewer,
    context: LqContext,
    latent: Tensor,
    timestep: int,
    seed: int = 0,
    add_noise: bool = True,
    positive: PromptEmbedding | None = None,
) -> Tensor:
    """The Previewer's clean latents [B, C, h, w] for latents of that shape, seen at a timestep of 0 to 999.

    add_noise: noise them up to the timestep before, picture i with seed + i; otherwise they have its noise already. positive: the
    prompt, else an empty one, with which the Previewer was distilled. Raises as restore_latent() does.
    """
    if not 0 <= timestep < TRAINING_STEPS:
        raise BadValueError(f"it is {timestep}.", where="timestep", way_out=f"Choose 0 to {TRAINING_STEPS - 1}.")
    require_latent(prior, latent, ENCODE)
    prompt = positive or prior.encode_prompt("")

    @torch.inference_mode()
    def seen(picture: Picture, _: int) -> Tensor:
        z, networks = picture.padded, picture.networks
        t = torch.full((1,), timestep, device=z.device)
        if add_noise:
            z = networks.schedule.add_noise(z, picture.draw().to(z), t)
        with rows_per_call(1):
            return picture.cropped(networks.preview(z, t, picture.conditions([prompt])).latent)

    result = torch.cat(for_each_picture(prior, context, previewer, None, latent, seed, TILE, seen)).to(latent.device)
    require_finite(result, "The preview")
    return result


def _references(prior: Prior, latent: Tensor, reference: Tensor | None) -> Sequence[Tensor | None]:
    """One [1, C, h, w] for every picture, or None."""
    count = latent.shape[0]
    if reference is None:
        return [None] * count
    require_latent(prior, reference, ENCODE)
    if reference.shape[0] not in (1, count) or reference.shape[1:] != latent.shape[1:]:
        raise BadValueError(
            f"it is {list(reference.shape)}, the latent is {list(latent.shape)}.",
            where="reference",
            way_out="Give one of the same size, or one for each picture.",
        )
    return reference.expand(count, -1, -1, -1).split(1)


@torch.inference_mode()
def _followed(steps: Iterator[Step], picture: Picture, show: Callable[[int, Tensor], None]) -> Restored:
    """The end of the steps, and every look taken on the way; after each step show(how many, latent it leads to) is called."""
    looks: list[Look] = []
    for number, step in enumerate(steps, start=1):
        if step.preview is not None and not (looks and step.preview is looks[-1]):
            looks.append(step.preview)
        show(number, picture.cropped(step.x0 if step.preview is None else step.preview.latent[-1:]))
    previews = [picture.cropped(look.latent[-1:]) for look in looks]
    restored = picture.cropped(step.z_next)
    return Restored(restored, torch.cat(previews) if previews else restored[:0])


class _Bar:
    """Progress with pictures; steps that are taken again after memory ran out move it once."""

    def __init__(self, progress: Progress, codec: LatentCodec) -> None:
        self._progress, self._codec, self._shown = progress, codec, 0

    def show(self, before: int, number: int, latent: Tensor) -> None:
        """before + number steps are done; latent [1, C, h, w] is where they lead."""
        self._progress.advance(max(0, before + number - self._shown), preview=partial(small_picture, self._codec, latent))
        self._shown = max(self._shown, before + number)


def small_picture(codec: LatentCodec, latent: Tensor) -> Tensor:
    """A picture [H, W, 3] in 0..1 of a latent [1, C, h, w], shrunk to SHOWN_SIDE latent pixels before it is decoded."""
    height, width = latent.shape[-2:]
    factor = min(1.0, SHOWN_SIDE / max(height, width))
    shrunk = F.interpolate(latent, (max(1, round(height * factor)), max(1, round(width * factor))), mode="area")
    with rows_per_call(1):
        return codec.decode(shrunk)[0].clamp(0, 1).permute(1, 2, 0)
