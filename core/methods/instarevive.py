"""InstaRevive, inference: one call of a PixArt transformer turns the latent of a coarse restoration into a clean one.

"InstaRevive: One-Step Image Enhancement via Dynamic Score Matching" (ICLR 2025): x_0 = (z - sqrt(1 - abar_t) eps(z; t, c)) /
sqrt(abar_t) at one fixed t. The release feeds the latent alone and draws nothing; the paper also concatenates noise and brings
the channels back by a convolution, which `noise_input` stands for. SwinIR goes before it: see pre_restore.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ..diffusion import ddpm_schedule, linear_betas
from ..errors import BadValueError
from ..imaging.tiling import Tile
from ..models.folding import fold_constants, require_unfolded
from ..models.prompt import PromptEmbedding
from ..runtime import current_host, run_model

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

# What the prompt and the timestep alone decide, by its name in the transformer.
CONSTANTS = (
    "adaln_single.emb", "adaln_single.linear", "caption_projection", "transformer_blocks.*.attn2.to_k", "transformer_blocks.*.attn2.to_v",
)  # fmt: skip

PHOTO = "real-world image, realistic, high quality, photograph, film, professional, 4k, highly detailed"
FACE = "portrait photo of human face, photograph, film, professional, 4k, highly detailed"
CARTOON = "cartoon portrait of human face, drawing, clean lines, smooth shading, professional, 4k, highly detailed"
# Texts by task: photo and face are the release's, cartoon is ours, the other two tasks start from the models of those.
PRESETS = {"photo": PHOTO, "face": FACE, "cartoon": CARTOON, "inpainting": FACE, "low light": PHOTO}

STEPS = 1000

MaskMode = Literal["bias", "keep"]
MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)


@dataclass(frozen=True)
class OneStepConstants:
    """What generator and training must agree on; kept in the weights' metadata.

    timestep: t, fed to the network and looked up in the schedule of 1000 linear betas. mask_mode: `bias` adds the prompt's
    mask to the logits, +1 on tokens and 0 on padding, which is attended to: what the published weights were trained with;
    `keep` leaves padding out. noise_input: whether noise is concatenated to the latent, as in the paper. largest_side: latent pixels
    along a side of what it was trained on, where larger ones confuse it: positions are computed for every size, but spread between
    the same two ends. None where there is no bound, as in the published weights.
    """

    timestep: int = 400
    mask_mode: MaskMode = "bias"
    noise_input: bool = False
    largest_side: int | None = None

    def __post_init__(self) -> None:
        """Raise BadValueError for a mode that there is none, a timestep beyond the schedule, or a side without pixels."""
        if self.mask_mode not in MASK_MODES:
            raise BadValueError(f"mask_mode is {self.mask_mode!r}, expected one of {', '.join(MASK_MODES)}.")
        if not 0 <= self.timestep < STEPS:
            raise BadValueError(f"timestep is {self.timestep}, expected 0 to {STEPS - 1}.")
        if self.largest_side is not None and self.largest_side < 1:
            raise BadValueError(f"largest_side is {self.largest_side}, expected at least 1 latent pixel.")


class InstaRevive(nn.Module):
    """The distilled student: a diffusers PixArtTransformer2DModel, its prompt embedding with mask, and its constants."""

    prompt: Tensor
    prompt_mask: Tensor

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        prompt: PromptEmbedding,
        constants: OneStepConstants,
        concat_conv: nn.Conv2d | None = None,
    ) -> None:
        """prompt: tokens [1, N, D] and mask [1, N]; without a mask every token counts. concat_conv: what takes latent and noise
        in; where noise_input asks for one and none is given, it starts by passing the latent through."""
        super().__init__()
        self.transformer = transformer
        mask = torch.ones(prompt.tokens.shape[:2]) if prompt.mask is None else prompt.mask
        self.register_buffer("prompt", prompt.tokens)
        self.register_buffer("prompt_mask", mask.to(prompt.tokens))
        self.constants = constants
        self.concat_conv = (concat_conv or latent_passing_conv(self.channels)) if constants.noise_input else None
        self.schedule = ddpm_schedule(linear_betas(steps=STEPS))

    @property
    def channels(self) -> int:
        """C of a latent [B, C, h, w]."""
        return int(self.transformer.config.in_channels)

    @property
    def latent_multiple(self) -> int:
        """Sides of a latent must be multiples of this: the transformer's patches."""
        return int(self.transformer.config.patch_size)

    @property
    def largest_side(self) -> int | None:
        """What the constants say."""
        return self.constants.largest_side

    @property
    def noise_channels(self) -> int:
        """As many as the latent has, or none."""
        return self.channels if self.constants.noise_input else 0

    def with_prompt(self, prompt: PromptEmbedding) -> InstaRevive:
        """The same networks with another prompt. Raises BadValueError when constants are folded."""
        require_unfolded(self.transformer, "InstaRevive")
        told = PromptEmbedding(prompt.tokens.to(self.prompt), mask=prompt.mask)
        return InstaRevive(self.transformer, told, self.constants, self.concat_conv)

    def forward(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        """Restored latent [B, C, h, w] (scaled) from that of the coarse restoration; noise of the same shape where the constants
        ask for it."""
        timesteps = torch.full((latent.shape[0],), self.constants.timestep, device=latent.device)
        return self.schedule.clean(latent, self.predict_noise(latent, noise, timesteps), timesteps, "epsilon")

    def predict_noise(self, latent: Tensor, noise: Tensor | None, timesteps: Tensor) -> Tensor:
        """eps [B, C, h, w] at timesteps [B], in the latent's dtype: the first half of the output, whose second half is a variance
        that nothing uses."""
        seen, rows = latent.to(self.transformer.dtype), latent.shape[0]
        entering = seen if self.concat_conv is None or noise is None else self.concat_conv(torch.cat([seen, noise.to(seen)], dim=1))
        mask = as_attention_mask(self.prompt_mask.to(seen).expand(rows, -1), self.constants.mask_mode)
        prompt = self.prompt.to(seen).expand(rows, -1, -1)
        output = self.transformer(entering, encoder_hidden_states=prompt, timestep=timesteps, encoder_attention_mask=mask).sample
        return output[:, : self.channels].to(latent.dtype)

    def fold(self) -> None:
        """Compute once what prompt and timestep decide, and drop the modules that did; no other prompt is possible then."""
        side = self.latent_multiple
        latent = next(self.transformer.parameters()).new_zeros(1, self.channels, side, side)
        fold_constants(self.transformer, CONSTANTS, lambda: self(latent, latent))

    @torch.inference_mode()
    def restore_latent(self, latent: Tensor, noise: Tensor | None) -> Tensor:
        """forward() in micro-batches, float32 in and out; noise [B, noise_channels, h, w], or None where there are none."""
        inputs = [tensor.to(current_host().device) for tensor in (latent, noise) if tensor is not None]
        return run_model(self, *inputs).to(latent.device)


def as_attention_mask(mask: Tensor, mode: MaskMode) -> Tensor:
    """What the transformer is given for a prompt's mask [B, N]: with a middle axis it takes it as a bias that is ready to be added."""
    return mask[:, None] if mode == "bias" else mask


def latent_passing_conv(channels: int) -> nn.Conv2d:
    """concat_conv, [B, 2 C, h, w] of latent and noise -> [B, C, h, w], 3x3: at the start the latent as it is, no noise."""
    conv = nn.Conv2d(2 * channels, channels, 3, padding=1)
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def release_tiles(height: int, width: int, tile: int, stride: int) -> Iterator[Tile]:
    """The release's windows over height x width, row by row: starts 0, stride, 2 stride, ... while a window fits, and one more
    flush with the border. Its last two windows may overlap almost wholly; ours are spread evenly (imaging/tiling.py)."""
    for top in _release_starts(height, tile, stride):
        yield from (Tile(top, left, tile, tile) for left in _release_starts(width, tile, stride))


def _release_starts(length: int, tile: int, stride: int) -> list[int]:
    starts = list(range(0, length - tile + 1, stride))
    return starts if starts[-1] + tile == length else [*starts, length - tile]
