"""InstantIR's Degradation Content Perceptor: image tokens join the cross-attention of a U-Net (InstantIR, section 3, eq. 3 and 4).

Every cross-attention gets a second pair of keys and values, projected from the Resampler's tokens and modulated by the time
embedding; the same queries look at both, and a weight per layer says how much the image counts. Parameter names are those of
the published adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadValueError
from .resampler import Resampler, ResamplerConfig

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class TimeAdaptedNorm(nn.Module):
    """LayerNorm whose shift and scale come from the time embedding: LN(y) (1 + scale) + shift."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, 2 * width)

    def forward(self, tokens: Tensor, time_embedding: Tensor) -> Tensor:
        """[B, N, width] from tokens [B, N, width] and the U-Net's whole embedding [B, time_width], not yet activated."""
        shift, scale = self.linear(F.silu(time_embedding))[:, None].chunk(2, dim=-1)
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


@dataclass(frozen=True)
class ImageContext:
    """What the decoupled attentions see during one call of the U-Net.

    tokens [B, Q, D]: the Resampler's; time_embedding [B, T]; weights: one per processor index, 1 where none is named.
    text: keys and values [B, L, C] of the prompt by processor index, where text_keys() computed them before.
    """

    tokens: Tensor | None = None
    time_embedding: Tensor | None = None
    weights: dict[int, float] = field(default_factory=dict)
    text: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass
class Sight:
    """What every layer looks up: shared by all of one DCP, changed for the length of a call."""

    now: ImageContext = field(default_factory=ImageContext)


class DecoupledCrossAttention(nn.Module):
    """Attention processor of one attn2: Attn(Q, K, V) + w Attn(Q, K', V')."""

    def __init__(self, index: int, width: int, token_width: int, time_width: int, sight: Sight) -> None:
        super().__init__()
        self.index, self.sight = index, sight
        self.to_k_ip = nn.Linear(token_width, width, bias=False)
        self.to_v_ip = nn.Linear(token_width, width, bias=False)
        self.ln_k_ip = TimeAdaptedNorm(width, time_width)
        self.ln_v_ip = TimeAdaptedNorm(width, time_width)

    def forward(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """hidden_states [B, N, C], already normed by the block; encoder_hidden_states [B, L, D]: the text tokens."""

        def attend(keys: Tensor, values: Tensor) -> Tensor:
            parts = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (queries, keys, values))
            return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

        context, queries = self.sight.now, attn.to_q(hidden_states)
        stored = context.text.get(self.index)
        attended = attend(*(stored or (attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))))
        weight = context.weights.get(self.index, 1.0)
        if context.tokens is not None and context.time_embedding is not None and weight != 0:
            keys = self.ln_k_ip(self.to_k_ip(context.tokens), context.time_embedding)
            values = self.ln_v_ip(self.to_v_ip(context.tokens), context.time_embedding)
            attended = attended + weight * attend(keys, values)
        output: Tensor = attn.to_out[0](attended)
        return output


class DCP(nn.Module):
    """Resampler and decoupled attentions, by processor index as published. It belongs to no U-Net until attached()."""

    def __init__(self, widths: Mapping[int, int], time_width: int, config: ResamplerConfig) -> None:
        """widths: channels of each cross-attention by processor index; time_width: of the U-Net's embedding."""
        super().__init__()
        self.sight = Sight()
        self.image_proj = Resampler(config)
        self.ip_adapter = nn.ModuleDict(
            {
                str(index): DecoupledCrossAttention(index, width, config.output_dim, time_width, self.sight)
                for index, width in widths.items()
            }
        )

    @contextmanager
    def attached(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """Inside the block this U-Net's cross-attentions look at images, whenever seeing() says which.

        Raises BadValueError when the U-Net has other cross-attentions than those this DCP was made for.
        """
        expected = cross_attention_widths(unet)
        own = {int(index): self.width(int(index)) for index in self.ip_adapter}
        if own != expected:
            raise BadValueError(
                f"it is made for {len(own)} cross-attentions of {_told(own)} channels, the prior has {len(expected)} of {_told(expected)}.",
                where="DCP",
                way_out="Load the prior that the DCP belongs to: SDXL base for InstantIR's release.",
            )
        before = dict(unet.attn_processors)
        names = list(before)
        for index, processor in self.ip_adapter.items():
            _attention(unet, names[int(index)]).set_processor(processor)
        try:
            yield
        finally:
            for name, processor in before.items():
                _attention(unet, name).set_processor(processor)

    def text_keys(self, unet: UNet2DConditionModel, text: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values [B, L, C] of text tokens [B, L, D] by processor index: they depend on neither time nor picture, and the
        Previewer does not adapt them."""
        names = list(unet.attn_processors)
        layers = {int(index): _attention(unet, names[int(index)]) for index in self.ip_adapter}
        return {index: (layer.to_k(text), layer.to_v(text)) for index, layer in layers.items()}

    def width(self, index: int) -> int:
        """Channels C of the layer with that processor index."""
        layer = self.ip_adapter[str(index)]
        assert isinstance(layer, DecoupledCrossAttention)
        return layer.to_k_ip.out_features

    @contextmanager
    def seeing(self, context: ImageContext) -> Iterator[None]:
        """Inside the block the attached U-Net sees this."""
        before, self.sight.now = self.sight.now, context
        try:
            yield
        finally:
            self.sight.now = before


def cross_attention_widths(unet: UNet2DConditionModel) -> dict[int, int]:
    """Channels of every cross-attention by its index among the U-Net's attention processors: down blocks, up blocks, middle."""
    names = enumerate(unet.attn_processors)
    return {index: _attention(unet, name).to_k.out_features for index, name in names if name.endswith("attn2.processor")}


def _attention(unet: UNet2DConditionModel, processor_name: str) -> Any:
    return unet.get_submodule(processor_name.removesuffix(".processor"))


def _told(widths: Mapping[int, int]) -> str:
    return ", ".join(map(str, sorted(set(widths.values())))) or "no"
