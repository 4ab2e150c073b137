"""FluxIR's adapter: one double block of Flux sees the degraded latent and tells all 57 ("Acquire and then Adapt", arXiv 2504.15159).

Its image and text features reach every block of a frozen Flux through linear bottlenecks of their own (equations 1 to 4). No weights
are published; the layout is ours: own copies of Flux's embedders and first block under their names there, one linear layer for the
degraded latent, offsets for both embeddings of the prompt, and a pair of bottlenecks per block, double blocks first.

Importing this file imports diffusers, whose base classes give save_pretrained() and from_pretrained().
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.embeddings import CombinedTimestepGuidanceTextProjEmbeddings, CombinedTimestepTextProjEmbeddings
from diffusers.models.transformers.transformer_flux import FluxPosEmbed, FluxTransformerBlock
from torch import Tensor, nn

from ..errors import BadValueError
from .flux_tokens import text_positions

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

# Where a block's controls are added: to what it gives, or to what it takes.
Injection = Literal["after", "before"]
INJECTIONS: tuple[Injection, ...] = get_args(Injection)

# What the configurations of an adapter and of its Flux have in common, by the names of the latter.
SHARED = (
    "in_channels", "num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads", "joint_attention_dim",
    "pooled_projection_dim", "guidance_embeds", "axes_dims_rope",
)  # fmt: skip
ROTARY_BASE = 10000
# Flux's embedders take times and guidance in thousandths.
THOUSAND = 1000
COPYABLE = (torch.float32, torch.bfloat16, torch.float16)


class Features(NamedTuple):
    """f_z [B, L, d] of the image tokens and f_p [B, N, d] of the text tokens (eq. 2)."""

    image: Tensor
    text: Tensor


class Bottleneck(nn.Module):
    """SE(x) = W_e (W_s x + b_s) + b_e (eq. 3), zero at first; without a rank one full matrix, W_e x + b_e, as in Table 2."""

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        self.squeeze = nn.Identity() if rank is None else nn.Linear(width, rank)
        self.excite = nn.Linear(width if rank is None else rank, width)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, features: Tensor) -> Tensor:
        """The control [B, T, d] that features [B, T, d] are to one block (eq. 4)."""
        control: Tensor = self.excite(self.squeeze(features))
        return control

    def added_to(self, tokens: Tensor, features: Tensor, strength: float) -> Tensor:
        """tokens [B, T, d] + strength forward(features), in the tokens' dtype. The product adds as it goes, which halves the time."""
        squeezed = self.squeeze(features).to(tokens.dtype)
        weight = self.excite.weight.to(tokens.dtype).T.expand(len(tokens), -1, -1)
        return torch.baddbmm(tokens, squeezed, weight, alpha=strength).add_(strength * self.excite.bias.to(tokens.dtype))


class FluxAdapter(ModelMixin, ConfigMixin):
    """Features of a degraded latent, and what they are to every block. The defaults are FLUX.1-dev's and the paper's."""

    def __init__(
        self,
        in_channels: int = 64,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        pooled_projection_dim: int = 768,
        guidance_embeds: bool = True,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        text_tokens: int = 512,
        rank: int | None = 32,
        injection: Injection = "after",
    ) -> None:
        """The first nine are Flux's own. text_tokens: the longest prompt; rank: r of the bottlenecks, None for full matrices;
        injection: where controls enter, which the weights are trained for. Raises BadValueError for another injection."""
        super().__init__()
        if injection not in INJECTIONS:
            raise BadValueError(f"there is no injection {injection!r}.", where="FluxIR adapter", way_out=f"Known: {', '.join(INJECTIONS)}.")
        self.register_to_config(
            in_channels=in_channels, num_layers=num_layers, num_single_layers=num_single_layers, attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads, joint_attention_dim=joint_attention_dim,
            pooled_projection_dim=pooled_projection_dim, guidance_embeds=guidance_embeds, axes_dims_rope=tuple(axes_dims_rope),
            text_tokens=text_tokens, rank=rank, injection=injection,
        )  # fmt: skip
        width = num_attention_heads * attention_head_dim
        self.theta_p = nn.Parameter(torch.zeros(1, text_tokens, joint_attention_dim))
        self.theta_y = nn.Parameter(torch.zeros(1, pooled_projection_dim))
        self.x_embedder = nn.Linear(in_channels, width)
        self.context_embedder = nn.Linear(joint_attention_dim, width)
        embeddings = CombinedTimestepGuidanceTextProjEmbeddings if guidance_embeds else CombinedTimestepTextProjEmbeddings
        self.time_text_embed = embeddings(width, pooled_projection_dim)
        self.pos_embed = FluxPosEmbed(ROTARY_BASE, axes_dims_rope)
        # One layer alone: below a zero layer nothing would be learnt.
        self.control_in = nn.Linear(in_channels, width)
        nn.init.zeros_(self.control_in.weight)
        nn.init.zeros_(self.control_in.bias)
        self.block = FluxTransformerBlock(width, num_attention_heads, attention_head_dim)
        blocks = num_layers + num_single_layers
        self.se_z = nn.ModuleList(Bottleneck(width, rank) for _ in range(blocks))
        self.se_p = nn.ModuleList(Bottleneck(width, rank) for _ in range(blocks))

    @classmethod
    def for_transformer(cls, config: Mapping[str, Any], **own: Any) -> FluxAdapter:
        """An adapter, its weights still random, that fits a Flux of that configuration. own: text_tokens, rank, injection."""
        return cls(**{name: config[name] for name in SHARED if name in config}, **own)

    @classmethod
    def from_transformer(cls, flux: FluxTransformer2DModel, **own: Any) -> FluxAdapter:
        """An adapter to begin training with: copies of that Flux's embedders and first block, and controls of zero. own: as in
        for_transformer(). Raises BadValueError for a Flux whose weights are quantised."""
        adapter = cls.for_transformer(flux.config, **own)
        pairs = {
            "x_embedder": flux.x_embedder, "context_embedder": flux.context_embedder, "time_text_embed": flux.time_text_embed,
            "block": flux.transformer_blocks[0],
        }  # fmt: skip
        for name, source in pairs.items():
            quantised = {str(parameter.dtype) for parameter in source.parameters() if parameter.dtype not in COPYABLE}
            if quantised:
                raise BadValueError(
                    f"its {name} is kept as {', '.join(sorted(quantised))}, of which no adapter can begin as a copy.",
                    where="Flux",
                    way_out="Begin with the model in bf16; the adapter then runs on a quantised one too.",
                )
            adapter.get_submodule(name).load_state_dict(source.state_dict())
        return adapter

    def forward(
        self, z_t: Tensor, z_lq: Tensor, prompt: Tensor, pooled: Tensor, timestep: Tensor, guidance: Tensor, image_ids: Tensor
    ) -> Features:
        """f_z, f_p = D(z_t + M(z_lq), p + theta_p, y + theta_y, t) (eq. 1 and 2), in the adapter's own dtype.

        z_t, z_lq: packed latents [B, L, C]; prompt [B, N, D], N at most text_tokens; pooled [B, P]; timestep, guidance [B], the
        former in 0..1; image_ids [L, 3]. Raises BadValueError for a longer prompt.
        """
        z_t, z_lq, prompt, pooled, timestep, guidance = (
            given.to(self.theta_p.dtype) for given in (z_t, z_lq, prompt, pooled, timestep, guidance)
        )
        length = prompt.shape[1]
        if length > self.theta_p.shape[1]:
            raise BadValueError(
                f"the prompt has {length} tokens, at most {self.theta_p.shape[1]} are possible.",
                where="FluxIR adapter",
                way_out="Shorten the prompt.",
            )
        scales = (timestep * THOUSAND, guidance * THOUSAND) if self.config.guidance_embeds else (timestep * THOUSAND,)
        text, image = self.block(
            hidden_states=self.x_embedder(z_t) + self.control_in(z_lq),
            encoder_hidden_states=self.context_embedder(prompt + self.theta_p[:, :length]),
            temb=self.time_text_embed(*scales, pooled + self.theta_y),
            image_rotary_emb=self.pos_embed(torch.cat([text_positions(length).to(image_ids), image_ids])),
        )
        return Features(image, text)

    def layers_of(self, index: int) -> tuple[Bottleneck, Bottleneck]:
        """The bottlenecks of the block with that index, for image and text."""
        image, text = self.se_z[index], self.se_p[index]
        assert isinstance(image, Bottleneck) and isinstance(text, Bottleneck)
        return image, text

    def require_fit(self, flux: FluxTransformer2DModel) -> None:
        """Raise BadValueError when the adapter is made for a Flux of another configuration."""
        faults = [
            f"{name} is {_told(self.config[name])}, the prior has {_told(flux.config[name])}"
            for name in SHARED
            if _told(self.config[name]) != _told(flux.config[name])
        ]
        if faults:
            raise BadValueError(
                f"it is made for another Flux: {'; '.join(faults)}.", where="FluxIR adapter", way_out="Load the prior it belongs to."
            )


def _told(value: object) -> object:
    """A configuration's entry as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
