"""FluxIR, inference: Flux denoises while an adapter tells every block of it what the degraded picture holds.

"Acquire and then Adapt: Squeezing out Text-to-Image Model for Image Restoration" (arXiv 2504.15159). From noise, twenty Euler steps
of Flux's own schedule: z += (s_{k+1} - s_k) v(z, s_k), where v is steered by the adapter's controls (equations 1 to 4), computed once
per step. Guidance is an input of the network, so no second pass is needed; the prompt is empty unless a person gives one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..diffusion import flux_sigmas
from ..errors import BadValueError
from ..imaging.padding import pad_to_multiple
from ..imaging.tiling import Tile, blend_tiles, plan_tiles
from ..models.controlled_flux import ControlledFlux, controlled
from ..models.flux_tokens import PATCH, image_positions, pack_latent, unpack_latent
from ..models.prior import Prior
from ..models.prompt import PromptEmbedding
from ..randomness import draw_noise, picture_generators
from ..runtime import current_host, require_finite, rows_per_call, run_model, with_smaller_tiles
from .windows import is_open, require_window

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from ..models.flux_adapter import FluxAdapter

TIMESTEPS = 1000
SMALLEST_TILE = 256
# What neighbouring tiles share of their side.
OVERLAP = 1 / 8


@dataclass(frozen=True)
class Options:
    """guidance: the scale that the network is told. strength: multiplies every control; 0 is plain Flux. The adapter steers from
    control_start to control_end, fractions of the steps; outside that window it does not run."""

    steps: int = 20
    guidance: float = 4.0
    strength: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0

    def check(self) -> None:
        """Raise BadValueError for no steps at all and for a window that closes before it opens."""
        if self.steps < 1:
            raise BadValueError(f"it is {self.steps}.", where="steps", way_out="Choose at least 1.")
        require_window(self.control_start, self.control_end, "control_start", "control_end")

    def strength_at(self, index: int, steps: int) -> float:
        """How much the controls count in that step."""
        return self.strength if is_open(index, steps, self.control_start, self.control_end) else 0.0


def restore_latent(
    prior: Prior,
    adapter: FluxAdapter,
    degraded: Tensor,
    seed: int,
    options: Options,
    tile: int = 1024,
    prompt: PromptEmbedding | None = None,
) -> Tensor:
    """Restored scaled latent [B, C, h, w] float32 of a degraded one of that size; element i uses the seed + i.

    prior: Flux's, the one the adapter is made for; tile: pixels along a side that one call sees at most (fewer where the prior was
    trained on fewer), larger pictures are sampled in tiles; prompt: the empty one where none is given. Sides grow to whole tokens by
    reflection and are cut again. Raises BadValueError for a prior, latent or prompt that does not fit, OutOfMemoryError when the
    smallest tile does not.
    """
    options.check()
    require_finite(degraded, "The latent")
    flux, prompt = flux_told(prior, prompt or "")
    _require_channels(degraded, flux)
    device, (height, width) = current_host().device, degraded.shape[-2:]
    padded = pad_to_multiple(degraded.to(device, torch.float32), PATCH)
    noise = draw_noise(picture_generators(seed, len(padded)), padded.shape[1:]).to(device)

    def run(pixels: int) -> Tensor:
        plan = plan_latent(noise, pixels // prior.codec.downscale)
        sigmas = flux_sigmas(options.steps, plan[0].height * plan[0].width // PATCH**2).to(device)
        progress = current_host().progress(options.steps, "Restoring")
        z = noise
        for state in sample(network, noise, padded, prompt, sigmas, options, plan):
            z = state
            progress.advance()
        return z

    whole = max(padded.shape[-2:]) * prior.codec.downscale
    # One row fills a device, and in company its last bits would depend on its place.
    with rows_per_call(1), controlled(flux, adapter, prior.dtype) as network:
        restored = with_smaller_tiles(run, prior.bounded(min(tile, whole)), SMALLEST_TILE)
    require_finite(restored, "The restored latent")
    return restored[..., :height, :width].to(degraded.device)


def plan_latent(latent: Tensor, side: int) -> list[Tile]:
    """Windows of `side` latent pixels that share an eighth with their neighbours; one of the whole latent [B, C, h, w] where that fits."""
    size = PATCH * max(1, side // PATCH)
    return plan_tiles(latent.shape[-2], latent.shape[-1], size, PATCH * round(size * OVERLAP / PATCH), PATCH)


def sample(
    network: ControlledFlux,
    noise: Tensor,
    degraded: Tensor | None,
    prompt: PromptEmbedding,
    sigmas: Tensor,
    options: Options,
    plan: Sequence[Tile] | None = None,
) -> Iterator[Tensor]:
    """z [B, C, h, w] float32 after every step of sigmas [steps + 1]; the last is the restored latent.

    noise: z at the first sigma; degraded: the scaled latent of the picture, of that shape, None for a Flux on its own; prompt: rows 1
    or B. plan: tiles that each prediction is made in, all parts of the one z, so that neighbours agree and no pattern repeats.
    """
    plan = plan or [Tile(0, 0, *noise.shape[-2:])]
    z, steps = noise, len(sigmas) - 1
    for index in range(steps):
        strength = options.strength_at(index, steps)
        seen = z if degraded is None or strength == 0 else torch.cat([z, degraded], dim=1)
        velocity = _Velocity(network, prompt, sigmas[index], options.guidance, strength, channels=z.shape[1])
        z = z + (sigmas[index + 1] - sigmas[index]) * blend_tiles(velocity, seen, plan, label=None)
        yield z


@dataclass(frozen=True)
class _Velocity:
    """What the network says of windows of z at one sigma; channels: those of z, behind which lie those of the degraded latent."""

    network: ControlledFlux
    prompt: PromptEmbedding
    sigma: Tensor
    guidance: float
    strength: float
    channels: int

    @torch.inference_mode()
    def __call__(self, windows: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """v [T * B, C, h, w] of windows [T * B, C or 2C, h, w]."""
        (rows, _, height, width), device = windows.shape, windows.device
        z_t, *z_lq = (pack_latent(part) for part in windows.split(self.channels, dim=1))
        # Flux's pipeline turns sigmas into timesteps and back, which rounds them.
        timestep = (self.sigma * TIMESTEPS / TIMESTEPS).expand(rows)
        told = (*self._prompt_rows(rows, device), timestep, torch.full((rows,), self.guidance, device=device))
        ids = image_positions(height, width).to(device)
        velocity = run_model(self.network, z_t, *told, *z_lq, image_ids=ids, strength=self.strength)
        return unpack_latent(velocity.float(), height, width)

    def _prompt_rows(self, rows: int, device: torch.device) -> Iterator[Tensor]:
        """Tokens and pooled embedding once for every window."""
        for part in (self.prompt.tokens, self.prompt.pooled):
            assert part is not None
            yield part.to(device).repeat(rows // len(part), *[1] * (part.ndim - 1))


def flux_told(prior: Prior, prompt: PromptEmbedding | str) -> tuple[FluxTransformer2DModel, PromptEmbedding]:
    """The prior's transformer, and what it is told. Raises BadValueError for a prior of another kind and a prompt of another model.

    A text is encoded before the transformer is read, so that the encoders, which leave afterwards, never lie beside it.
    """
    if prior.family != "flux" or prior.denoiser is None:
        raise BadValueError(
            "it has no Flux transformer, which this works with.", where=f"Prior {prior.family}", way_out="Load a prior of the family flux."
        )
    embedding = prior.encode_prompt(prompt) if isinstance(prompt, str) else prompt
    flux = cast("FluxTransformer2DModel", prior.denoiser())
    _require_prompt(embedding, flux)
    return flux, embedding


def _require_channels(latent: Tensor, flux: FluxTransformer2DModel) -> None:
    channels = flux.config.in_channels // PATCH**2
    if latent.ndim != 4 or latent.shape[1] != channels or not latent.numel():
        raise BadValueError(
            f"the latent is {list(latent.shape)}, expected [batch, {channels}, height, width].",
            where="FluxIR",
            way_out="Encode the picture with the prior that the adapter belongs to.",
        )


def _require_prompt(prompt: PromptEmbedding, flux: FluxTransformer2DModel) -> None:
    """Raise BadValueError for the embedding of another family's encoders."""
    width, pooled_width = flux.config.joint_attention_dim, flux.config.pooled_projection_dim
    pooled = None if prompt.pooled is None else list(prompt.pooled.shape)
    if prompt.tokens.shape[-1] != width or pooled is None or pooled[-1] != pooled_width:
        raise BadValueError(
            f"the prompt is {list(prompt.tokens.shape)} and {pooled}, expected [1, tokens, {width}] and [1, {pooled_width}].",
            where="Flux",
            way_out="Encode the prompt with the text encoders of Flux.",
        )
