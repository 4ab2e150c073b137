"""GenDR, inference: one U-Net call turns a low-quality latent into a high-quality one.

"GenDR: Lightning Generative Detail Restorator", equation (2): z_g = (z_l - beta eps_theta(z_l; t_s, c)) / alpha, with a
stored prompt embedding c, a fixed timestep t_s, no scheduler, no text encoder and no guidance. The embedded restorer is
the same code at a small size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..diffusion import constant_schedule
from ..errors import BadValueError
from ..models.folding import fold_constants, require_unfolded
from ..models.prompt import PromptEmbedding
from ..runtime import current_host, run_model

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# What the prompt and the timestep alone decide, by its name in the U-Net.
CONSTANTS = ("time_embedding", "*.time_emb_proj", "*.attn2.to_k", "*.attn2.to_v")


@dataclass(frozen=True)
class OneStepConstants:
    """What generator and training must agree on; kept in the weights' metadata.

    alpha, beta: the two multipliers of equation (2). timestep: t_s, fed to the network.
    """

    alpha: float = 0.5
    beta: float = 0.5
    timestep: int = 500


def one_step(unet: UNet2DConditionModel, latent: Tensor, prompt: Tensor, constants: OneStepConstants) -> Tensor:
    """z_g [B, C, h, w] from z_l by equation (2), prompt [1, N, D]; in the latent's dtype, the network's call in its own."""
    seen = latent.to(unet.dtype)
    timestep = torch.tensor([constants.timestep], device=latent.device)
    eps = unet(seen, timestep, encoder_hidden_states=prompt.to(seen).expand(latent.shape[0], -1, -1)).sample
    schedule = constant_schedule(constants.alpha, constants.beta)
    return schedule.clean(latent, eps.to(latent.dtype), timestep, "epsilon")


class GenDR(nn.Module):
    """The distilled student: a diffusers UNet2DConditionModel, its prompt embedding and its constants."""

    prompt: Tensor

    def __init__(self, unet: UNet2DConditionModel, prompt: Tensor, constants: OneStepConstants) -> None:
        """prompt: stored text embedding [1, N, D] of the fixed positive prompt."""
        super().__init__()
        self.unet = unet
        self.register_buffer("prompt", prompt)
        self.constants = constants

    @property
    def latent_multiple(self) -> int:
        """Sides of a latent must be multiples of this: the U-Net halves them once per level but the last."""
        return int(2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def largest_side(self) -> int | None:
        """A U-Net has no positions that could end."""
        return None

    @property
    def noise_channels(self) -> int:
        """GenDR draws nothing."""
        return 0

    def with_prompt(self, prompt: PromptEmbedding) -> GenDR:
        """The same U-Net with another prompt embedding [1, N, D]. Raises BadValueError for another width, and when constants are
        folded."""
        require_unfolded(self.unet, "GenDR")
        width = self.unet.config.cross_attention_dim
        if prompt.tokens.shape[-1] != width:
            raise BadValueError(
                f"the prompt embedding is {list(prompt.tokens.shape)}, expected [1, tokens, {width}].",
                where="GenDR",
                way_out="Encode the prompt with the text encoder of Stable Diffusion 2.1.",
            )
        return GenDR(self.unet, prompt.tokens.to(self.prompt), self.constants)

    def forward(self, latent: Tensor) -> Tensor:
        """Restored latent [B, C, h, w] (scaled) from the low-quality one: equation (2), in the latent's dtype."""
        return one_step(self.unet, latent, self.prompt, self.constants)

    def fold(self) -> None:
        """Compute once what prompt and timestep decide, and drop the modules that did; no other prompt is possible then."""
        side = self.latent_multiple
        picture = self.prompt.new_zeros(1, self.unet.config.in_channels, side, side)
        fold_constants(self.unet, CONSTANTS, lambda: self(picture))

    @torch.inference_mode()
    def restore_latent(self, latent: Tensor, noise: Tensor | None) -> Tensor:
        """forward() in micro-batches, float32 in and out. GenDR draws nothing, so noise is None."""
        return run_model(self, latent.to(current_host().device)).to(latent.device)
