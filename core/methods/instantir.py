"""InstantIR, sampling: SDXL restores while it looks at previews of where it is going (arXiv 2410.06551, equations 2 to 7, Algorithm 1).

At every step the Previewer jumps from z_t to a clean latent, the Aggregator compares that with the degraded latent, and its
residuals steer the denoising step. AdaRes lets the disagreement of preview and denoised mean decide how much to steer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

import torch
from torch import Tensor

from ..diffusion import NoiseSchedule
from ..errors import BadValueError
from ..runtime import rows_per_call
from .instantir_networks import Conditions, InstantIR, Look, Steering
from .windows import is_open, require_window

TRAINING_STEPS = 1000
# Where AdaRes asks for less strength than this, the release's rests.
NEGLIGIBLE = 0.1
SMALLEST_VARIANCE = 1e-20
SMALLEST_CHANGE = 1e-12

AdaRes = Literal["off", "paper", "released"]
ADARES: tuple[AdaRes, ...] = get_args(AdaRes)


@dataclass(frozen=True)
class Options:
    """guidance: 1 turns it off. Windows are fractions of the steps, empty where they start as they end; creative_start is where
    control ends. preview_every: steps between previews, the last one serves in between. conditional_previews: one look for both
    halves under guidance. strength: of the residuals. quirks: AdaRes exactly as released, or as printed (delta may exceed 1), for
    comparison alone."""

    steps: int = 30
    guidance: float = 7.0
    guidance_rescale: float = 0.0
    sampler: str = "ddpm"
    adares: AdaRes = "off"
    start_from_degraded: bool = True
    preview_start: float = 0.0
    preview_end: float = 1.0
    preview_every: int = 1
    conditional_previews: bool = False
    control_start: float = 0.0
    creative_start: float = 1.0
    strength: float = 1.0
    quirks: bool = False

    def check(self) -> None:
        """Raise BadValueError for a choice that there is not, a number out of its bounds, or a window that closes before it opens."""
        for name, known in (("sampler", tuple(SOLVERS)), ("adares", ADARES)):
            if getattr(self, name) not in known:
                raise BadValueError(f"there is no {getattr(self, name)!r}.", where=name, way_out=f"Choose one of {', '.join(known)}.")
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                expected = f"{low} to {high}" if high < inf else f"at least {low}"
                raise BadValueError(f"it is {getattr(self, name)}.", where=name, way_out=f"Choose {expected}.")
        for opening, closing in WINDOWS:
            require_window(getattr(self, opening), getattr(self, closing), opening, closing)


BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, TRAINING_STEPS), "guidance": (1, inf), "guidance_rescale": (0, 1), "strength": (0, inf),
    "preview_every": (1, TRAINING_STEPS),
}  # fmt: skip
WINDOWS = (("preview_start", "preview_end"), ("control_start", "creative_start"))


def fast(options: Options) -> Options:
    """The same with one look for both halves of the guidance, in every second step alone: about a quarter less time, for a result
    that is not quite the same (`make bench` measures both)."""
    return replace(options, conditional_previews=True, preview_every=2)


@dataclass(frozen=True)
class Step:
    """One step as it was taken. preview and reference are None where Previewer or Aggregator did not run.

    z, eps (guided), x0, z_next [B, C, h, w]; reference [R, C, h, w]; residuals: scaled, [] where none were added;
    delta [B]: equation 7, for the step that follows.
    """

    z: Tensor
    preview: Look | None
    reference: Tensor | None
    residuals: list[Tensor]
    eps: Tensor
    x0: Tensor
    z_next: Tensor
    delta: Tensor


def sample(
    networks: InstantIR,
    degraded: Tensor,
    conditions: Conditions,
    options: Options,
    draw: Callable[[], Tensor],
    reference: Tensor | None = None,
) -> Iterator[Step]:
    """The steps of one run, the last z_next being the restored latent. Algorithm 1, or the release's loop with AdaRes off.

    degraded [B, C, h, w]: the scaled latent of the picture; draw: the next standard normal noise of that shape; reference: what
    the Aggregator sees beside it instead of previews, and of `degraded` itself where no preview is.
    """
    timesteps = leading_timesteps(options.steps)
    levels = noise_levels(networks.schedule, timesteps, ends_clean=options.sampler == "ddpm" or options.adares == "paper")
    z = start(degraded, levels[0], options, draw())
    memory = Memory.at_start(degraded)
    for index, timestep in enumerate(timesteps):
        t = torch.full((conditions.pooled.shape[0],), timestep, device=z.device)
        strength = strength_at(index, options, memory)
        preview = look_ahead(networks, z, t, conditions, index, options, memory, strength)
        steering = compare(degraded, reference, preview, t, options, memory, strength)
        denoised = networks.denoise(_rows(z, t), t, conditions, steering, left_over(memory, strength, t) if options.quirks else [])
        eps = guided(denoised.eps, options)
        x0 = networks.schedule.clean(z, eps, t[:1], "epsilon")
        noise = draw() if options.sampler == "ddpm" else torch.zeros_like(z)
        z_next = SOLVERS[options.sampler](z, x0, eps, levels[index], levels[index + 1], noise)
        memory = memory.after(preview, x0, denoised.residuals, options.quirks)
        yield Step(z, preview, steering and steering.reference, denoised.residuals, eps, x0, z_next, memory.delta)
        z = z_next


def leading_timesteps(steps: int) -> list[int]:
    """t_i = 1 + stride (N - 1 - i): SDXL's leading spacing with an offset of 1, 958 to 1 for 30 steps. 1000 steps begin with the
    last timestep twice, because there is none after it."""
    stride = TRAINING_STEPS // steps
    return [min(1 + stride * (steps - 1 - index), TRAINING_STEPS - 1) for index in range(steps)]


Level = tuple[float, float]


def noise_levels(schedule: NoiseSchedule, timesteps: list[int], ends_clean: bool) -> list[Level]:
    """(a, b) of every timestep, and of what follows the last one: 1 and 0, or those of timestep 0 as SDXL's DDIM has it."""
    indices = torch.tensor([*timesteps, 0])
    levels = list(zip(schedule.signal(indices).tolist(), schedule.noise(indices).tolist(), strict=True))
    return [*levels[:-1], (1.0, 0.0) if ends_clean else levels[-1]]


def start(degraded: Tensor, level: Level, options: Options, noise: Tensor) -> Tensor:
    """z_T: the degraded latent noised to the first timestep, or noise alone."""
    noise = noise.to(degraded)
    return level[0] * degraded + level[1] * noise if options.start_from_degraded else noise


@dataclass(frozen=True)
class Memory:
    """What a step leaves to the next: the last look (None before the first), delta [B], and the residuals last added."""

    look: Look | None
    delta: Tensor
    residuals: list[Tensor]

    @classmethod
    def at_start(cls, degraded: Tensor) -> Memory:
        """Nothing seen yet, and delta 1, which is the degraded latent itself."""
        return cls(None, degraded.new_ones(degraded.shape[0]), [])

    def after(self, look: Look | None, x0: Tensor, residuals: list[Tensor], quirks: bool) -> Memory:
        """Equation 7, delta = ||P - x_0||^2 / ||P - P_before||^2 of the conditional rows; without a new look it stays.

        The release divides by zero then, since it compares the last look with itself, and so turns to full strength.
        """
        latest = look or (self.look if quirks else None)
        if latest is None or (latest is self.look and not quirks):
            return Memory(self.look, self.delta, residuals)
        own = latest.latent[-x0.shape[0] :]
        before = torch.zeros_like(own) if self.look is None else self.look.latent[-x0.shape[0] :]
        change = _squares(own - before) + (0.0 if quirks else SMALLEST_CHANGE)
        return Memory(latest, _squares(own - x0) / change, residuals)


def left_over(memory: Memory, strength: Tensor, t: Tensor) -> list[Tensor]:
    """The release adds the residuals of the last step again where the Aggregator rests, scaled once more."""
    return [_rows(strength, t).reshape(-1, 1, 1, 1) * residual for residual in memory.residuals]


def strength_at(index: int, options: Options, memory: Memory) -> Tensor:
    """s [B]: how much the residuals count in this step; the release's AdaRes lets delta decide."""
    inside = is_open(index, options.steps, options.control_start, options.creative_start)
    strength = torch.full_like(memory.delta, options.strength if inside else 0.0)
    return torch.minimum(memory.delta.clamp(min=0), strength) if options.adares == "released" else strength


def steers(strength: Tensor, options: Options) -> bool:
    """Whether the Aggregator works in this step."""
    return bool((strength > (NEGLIGIBLE if options.adares == "released" else 0)).any())


def look_ahead(
    networks: InstantIR,
    z: Tensor,
    t: Tensor,
    conditions: Conditions,
    index: int,
    options: Options,
    memory: Memory,
    strength: Tensor,
) -> Look | None:
    """This step's preview: a new one, the last one between two looks, or None outside its window."""
    inside = is_open(index, options.steps, options.preview_start, options.preview_end)
    wanted = steers(strength, options) or (options.adares == "released" and not options.quirks)
    if not (inside and wanted):
        return None
    if memory.look is not None and index % options.preview_every:
        return memory.look
    if not options.conditional_previews:
        return networks.preview(_rows(z, t), t, conditions)
    with rows_per_call(z.shape[0]):
        own = networks.preview(z, t[-z.shape[0] :], conditions.last(z.shape[0]))
    return Look(*(_rows(part, t) for part in own))


def compare(
    degraded: Tensor, reference: Tensor | None, preview: Look | None, t: Tensor, options: Options, memory: Memory, strength: Tensor
) -> Steering | None:
    """What the Aggregator sees beside the degraded latent: the preview, drawn towards it by the paper's AdaRes; None for a rest."""
    if not steers(strength, options):
        return None
    rows = compared = _rows(degraded, t)
    if reference is not None:
        compared = _rows(reference, t)
    elif preview is not None:
        compared = preview.latent
    if preview is not None and options.adares == "paper":
        delta = memory.delta if options.quirks else memory.delta.clamp(0, 1)
        compared = torch.lerp(compared, rows, _rows(delta, t).reshape(-1, 1, 1, 1))
    return Steering(rows, compared, _rows(strength, t))


def guided(eps: Tensor, options: Options) -> Tensor:
    """eps_u + g (eps_c - eps_u) [B, C, h, w] from both halves; with guidance 1 there is one half alone."""
    if options.guidance <= 1:
        return eps
    unconditional, conditional = eps.chunk(2)
    mixed = unconditional + options.guidance * (conditional - unconditional)
    if options.guidance_rescale == 0:
        return mixed
    gain = conditional.std(dim=(1, 2, 3), keepdim=True) / mixed.std(dim=(1, 2, 3), keepdim=True)
    return mixed * (1 + options.guidance_rescale * (gain - 1))


def ddpm_step(z: Tensor, x0: Tensor, eps: Tensor, level: Level, following: Level, noise: Tensor) -> Tensor:
    """Ancestral step with the smaller of the two posterior variances, as released."""
    product, before = level[0] ** 2, following[0] ** 2
    beta = 1 - product / before
    mean = following[0] * beta / (1 - product) * x0 + (product / before) ** 0.5 * (1 - before) / (1 - product) * z
    variance = max((1 - before) / (1 - product) * beta, SMALLEST_VARIANCE)
    return mean + variance**0.5 * noise.to(z)


def ddim_step(z: Tensor, x0: Tensor, eps: Tensor, level: Level, following: Level, noise: Tensor) -> Tensor:
    """Deterministic step: line 8 of Algorithm 1 with the factor b_{t-1} that its print lacks."""
    return following[0] * x0 + following[1] * eps


SOLVERS: dict[str, Callable[[Tensor, Tensor, Tensor, Level, Level, Tensor], Tensor]] = {"ddpm": ddpm_step, "ddim": ddim_step}


def _rows(latent: Tensor, t: Tensor) -> Tensor:
    """latent [B, ...] for every half: [R, ...]."""
    return torch.cat([latent] * (t.shape[0] // latent.shape[0]))


def _squares(difference: Tensor) -> Tensor:
    return difference.square().sum(dim=(1, 2, 3))
