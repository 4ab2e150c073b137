"""TSD-SR, inference: one call of a distilled Stable Diffusion 3 turns a low-quality latent into a high-quality one.

"TSD-SR: One-Step Diffusion with Target Score Distillation for Real-World Image Super-Resolution" (arXiv 2411.18263). The
low-quality latent is taken for the sample at the highest noise level of a rectified flow, where sigma = 1, so the velocity
v = eps - z that the transformer sees there leads to the restored one in a single step: z = z_lq - v(z_lq; t = 1000, c),
with a stored prompt embedding c, no text encoder and no guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..diffusion import flow_schedule
from ..errors import BadValueError
from ..models.folding import fold_constants, require_unfolded
from ..models.prompt import PromptEmbedding
from ..models.sd3_positions import factor_positions
from ..runtime import current_host, run_model

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

# What the prompt and the timestep alone decide, by its name in the transformer: a third of it, most of that in the adaLN
# modulations. The first block sees the text before any picture has touched it, so its side of the attention is constant too.
CONSTANTS = (
    "time_text_embed",
    "context_embedder",
    "transformer_blocks.*.norm1.linear",
    "transformer_blocks.*.norm1_context.linear",
    "norm_out.linear",
    "transformer_blocks.0.attn.add_q_proj",
    "transformer_blocks.0.attn.add_k_proj",
    "transformer_blocks.0.attn.add_v_proj",
)


@dataclass(frozen=True)
class OneStepConstants:
    """What generator and training must agree on; kept in the metadata of files of ours.

    latent_offset: what the network expects on top of a scaled latent. SD3's latents are scaling * (z - shift), but TSD-SR was
    trained on scaling * z, so for its published weights this is scaling * shift = 1.5305 * 0.0609. timestep: fed to the network.
    """

    latent_offset: float = 0.0
    timestep: float = 1000.0


class TsdSr(nn.Module):
    """The distilled student: a diffusers SD3Transformer2DModel, its prompt embedding and its constants."""

    prompt: Tensor
    pooled: Tensor

    def __init__(self, transformer: SD3Transformer2DModel, prompt: PromptEmbedding, constants: OneStepConstants) -> None:
        """prompt: stored embedding of the fixed positive prompt, tokens [1, N, D] and pooled [1, P]. Raises BadValueError for
        other widths than the transformer's."""
        super().__init__()
        fault = embedding_fault(transformer.config, prompt)
        if fault:
            raise BadValueError(fault, where="TSD-SR", way_out="Encode the prompt with the text encoders of SD3.")
        self.transformer = transformer
        self.register_buffer("prompt", prompt.tokens)
        self.register_buffer("pooled", prompt.pooled)
        self.constants = constants
        self.schedule = flow_schedule()

    @property
    def latent_multiple(self) -> int:
        """Sides of a latent must be multiples of this: one patch."""
        return int(self.transformer.config.patch_size)

    @property
    def largest_side(self) -> int:
        """Latent pixels along a side for which the transformer has positions."""
        return int(self.transformer.config.pos_embed_max_size) * self.latent_multiple

    @property
    def noise_channels(self) -> int:
        """The step draws nothing: TSD-SR's randomness is the posterior's."""
        return 0

    def with_prompt(self, prompt: PromptEmbedding) -> TsdSr:
        """The same transformer with another embedding. Raises BadValueError for other widths, and when constants are folded."""
        require_unfolded(self.transformer, "TSD-SR")
        return TsdSr(self.transformer, prompt, self.constants)

    def forward(self, latent: Tensor) -> Tensor:
        """Restored latent [B, C, h, w] (scaled) from the low-quality one: z = z_lq - v, sigma being 1."""
        return self.schedule.clean(latent, self.velocity(latent), self._timestep(latent), "velocity")

    def velocity(self, latent: Tensor) -> Tensor:
        """v [B, C, h, w] of a scaled latent, in its dtype. Raises BadValueError for a latent larger than the table of positions,
        and for one that is no whole number of patches."""
        self._require_size(latent)
        seen = (latent + self.constants.latent_offset).to(self.transformer.dtype)
        found = self.transformer(
            hidden_states=seen,
            encoder_hidden_states=self.prompt.to(seen).expand(seen.shape[0], -1, -1),
            pooled_projections=self.pooled.to(seen).expand(seen.shape[0], -1),
            timestep=self._timestep(seen),
        ).sample
        return found.to(latent.dtype)

    def fold(self) -> None:
        """Compute once what prompt and timestep decide, and drop the modules that did; no other prompt is possible then. The
        table of positions is held by its factors where it has some."""
        fold_constants(self.transformer, CONSTANTS, self._compute_constants)
        factor_positions(self.transformer)

    def _compute_constants(self) -> None:
        """Run every module that CONSTANTS names, and of the blocks only the first: the rest would cost minutes on a CPU."""
        network, side = self.transformer, self.latent_multiple
        tokens, pooled = self.prompt.to(network.dtype), self.pooled.to(network.dtype)
        time, text = network.time_text_embed(self._timestep(pooled), pooled), network.context_embedder(tokens)
        first, *rest = network.transformer_blocks
        first(network.pos_embed(tokens.new_zeros(1, network.config.in_channels, side, side)), text, time)
        for norm in (*(norm for block in rest for norm in (block.norm1, block.norm1_context)), network.norm_out):
            norm.linear(norm.silu(time))

    def _timestep(self, like: Tensor) -> Tensor:
        return torch.tensor([self.constants.timestep], device=like.device)

    @torch.inference_mode()
    def restore_latent(self, latent: Tensor, noise: Tensor | None) -> Tensor:
        """forward() in micro-batches, float32 in and out; noise is None. Raises BadValueError as velocity() does."""
        return run_model(self, latent.to(current_host().device)).to(latent.device)

    def _require_size(self, latent: Tensor) -> None:
        height, width = latent.shape[-2:]
        if height % self.latent_multiple or width % self.latent_multiple or not latent.numel():
            raise BadValueError(
                f"a latent of {width} x {height} is no whole number of patches, which are {self.latent_multiple} latent pixels a side.",
                where="TSD-SR",
                way_out="Pad the picture first.",
            )
        if max(height, width) > self.largest_side:
            raise BadValueError(
                f"a latent of {width} x {height} has no place in the transformer's positions, which end at {self.largest_side}.",
                where="TSD-SR",
                way_out=f"Restore the picture in tiles: with their overlap at most {self.largest_side} latent pixels a side, "
                f"which are {8 * self.largest_side} pixels with the VAE of SD3.",
            )


def embedding_fault(config: Mapping[str, Any], prompt: PromptEmbedding) -> str | None:
    """What is wrong with a prompt for a transformer of that configuration: tokens must be [1, N, D], pooled [1, P]."""
    width, pooled_width = config["joint_attention_dim"], config["pooled_projection_dim"]
    if prompt.tokens.ndim != 3 or prompt.tokens.shape[0] != 1 or prompt.tokens.shape[-1] != width:
        return f"the prompt embedding is {list(prompt.tokens.shape)}, expected [1, tokens, {width}]."
    if prompt.pooled is None or prompt.pooled.shape != (1, pooled_width):
        found = "missing" if prompt.pooled is None else str(list(prompt.pooled.shape))
        return f"the pooled prompt embedding is {found}, expected [1, {pooled_width}]."
    return None
