"""InstantIR's Degradation Content Perceptor: image tokens join the cross-attention of a U-Net (InstantIR, section 3, eq. 3 and 4).

Every cross-attention gets a second pair of keys and values, projected from the Resampler's tokens and modulated by the time
embedding; the same queries look at both, and a weight per layer says how much the image counts. Parameter names are those of
the published adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadValueError
from .resampler import Resampler, ResamplerConfig

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# [B, N, C] each.
KeysValues = tuple[Tensor, Tensor]


class TimeAdaptedNorm(nn.Module):
    """LayerNorm whose shift and scale come from the time embedding: LN(y) (1 + scale) + shift. LN(y) knows no time."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, 2 * width)

    def normalised(self, tokens: Tensor) -> Tensor:
        """LN(y) [B, N, width] of tokens [B, N, width]."""
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)

    def forward(self, normalised: Tensor, time_embedding: Tensor) -> Tensor:
        """[B, N, width] from normalised tokens [B, N, width] and the U-Net's whole embedding [B, time_width], not yet activated."""
        shift, scale = self.linear(F.silu(time_embedding))[:, None].chunk(2, dim=-1)
        adapted: Tensor = normalised * (1 + scale) + shift
        return adapted


@dataclass(frozen=True)
class ImageContext:
    """What the decoupled attentions see during one call of the U-Net, by processor index.

    image: DCP.image_keys(), nothing for text alone; text: DCP.text_keys(), nothing where the layers make them of the tokens that
    the U-Net is given; weights: how much the image counts, 1 where none is named.
    """

    image: Mapping[int, KeysValues] = field(default_factory=dict)
    text: Mapping[int, KeysValues] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)


@dataclass
class Sight:
    """What every layer looks up, shared by all of one DCP. now: changed for the length of a call; time_embedding [B, T]: the
    U-Net's, as it makes it in that call."""

    now: ImageContext = field(default_factory=ImageContext)
    time_embedding: Tensor | None = None


class DecoupledCrossAttention(nn.Module):
    """Attention processor of one attn2: Attn(Q, K, V) + w Attn(Q, K', V')."""

    def __init__(self, index: int, width: int, token_width: int, time_width: int, sight: Sight) -> None:
        super().__init__()
        self.index, self.sight = index, sight
        self.to_k_ip = nn.Linear(token_width, width, bias=False)
        self.to_v_ip = nn.Linear(token_width, width, bias=False)
        self.ln_k_ip = TimeAdaptedNorm(width, time_width)
        self.ln_v_ip = TimeAdaptedNorm(width, time_width)

    def image_keys(self, tokens: Tensor) -> KeysValues:
        """What K' and V' are made of, at any time, for the Resampler's tokens [B, Q, D]."""
        return self.ln_k_ip.normalised(self.to_k_ip(tokens)), self.ln_v_ip.normalised(self.to_v_ip(tokens))

    def forward(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """hidden_states [B, N, C], already normed by the block; encoder_hidden_states [B, L, D]: the text tokens."""

        def attend(keys: Tensor, values: Tensor) -> Tensor:
            parts = (part.to(queries).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (queries, keys, values))
            return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

        context, queries = self.sight.now, attn.to_q(hidden_states)
        text, image = context.text.get(self.index), context.image.get(self.index)
        attended = attend(*(text or (attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))))
        weight = context.weights.get(self.index, 1.0)
        if image is not None and weight != 0:
            assert self.sight.time_embedding is not None
            time = self.sight.time_embedding.to(image[0])
            attended = attended + weight * attend(self.ln_k_ip(image[0], time), self.ln_v_ip(image[1], time))
        output: Tensor = attn.to_out[0](attended)
        return output


class DCP(nn.Module):
    """Resampler and decoupled attentions, by processor index as published. It belongs to no U-Net until attached()."""

    def __init__(self, widths: Mapping[int, int], time_width: int, config: ResamplerConfig) -> None:
        """widths: channels of each cross-attention by processor index; time_width: of the U-Net's embedding."""
        super().__init__()
        self.widths, self.time_width = dict(widths), time_width
        self.sight = Sight()
        self.image_proj = Resampler(config)
        self.ip_adapter = nn.ModuleDict(
            {
                str(index): DecoupledCrossAttention(index, width, config.output_dim, time_width, self.sight)
                for index, width in widths.items()
            }
        )

    @property
    def layers(self) -> dict[int, DecoupledCrossAttention]:
        """The decoupled attentions by processor index."""
        return {int(index): cast(DecoupledCrossAttention, layer) for index, layer in self.ip_adapter.items()}

    @contextmanager
    def attached(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """Inside the block this U-Net's cross-attentions look at images, whenever seeing() says which.

        Raises BadValueError when the U-Net has other cross-attentions or another embedding than this DCP was made for.
        """
        self._require_fit(unet)
        before = dict(unet.attn_processors)
        names = list(before)
        # The U-Net's own embedding: where its weights are offloaded, nobody else can compute it.
        hooks = [
            unet.time_embedding.register_forward_hook(lambda _module, _inputs, output: self._feel(output)),
            unet.add_embedding.register_forward_hook(lambda _module, _inputs, output: self._feel(self.sight.time_embedding + output)),
        ]
        try:
            for index, layer in self.layers.items():
                # A method and no module, else its weights would be the U-Net's to offload.
                _attention(unet, names[index]).set_processor(layer.forward)
            yield
        finally:
            for name, processor in before.items():
                _attention(unet, name).set_processor(processor)
            for hook in hooks:
                hook.remove()
            self.sight.time_embedding = None

    @contextmanager
    def seeing(self, context: ImageContext) -> Iterator[None]:
        """Inside the block the attached U-Net sees this."""
        before, self.sight.now = self.sight.now, context
        try:
            yield
        finally:
            self.sight.now = before

    def text_keys(self, unet: UNet2DConditionModel, text: Tensor) -> dict[int, KeysValues]:
        """Keys and values of text tokens [B, L, D] by processor index: they depend on neither time nor picture. The published
        Previewer does not adapt them, others do."""
        names = list(unet.attn_processors)
        layers = {index: _attention(unet, names[index]) for index in self.widths}
        return {index: (layer.to_k(text), layer.to_v(text)) for index, layer in layers.items()}

    def image_keys(self, tokens: Tensor) -> dict[int, KeysValues]:
        """What every layer's image keys and values are made of, by processor index, for the encoder's tokens [B, N, D]: they do not
        depend on time."""
        resampled = self.image_proj(tokens)
        return {index: layer.image_keys(resampled) for index, layer in self.layers.items()}

    def _feel(self, embedding: Tensor) -> None:
        self.sight.time_embedding = embedding

    def _require_fit(self, unet: UNet2DConditionModel) -> None:
        expected = cross_attention_widths(unet)
        time_width = unet.time_embedding.linear_2.out_features
        if (self.widths, self.time_width) != (expected, time_width):
            raise BadValueError(
                f"it is made for {_told(self.widths, self.time_width)}, the prior has {_told(expected, time_width)}.",
                where="DCP",
                way_out="Load the prior that the DCP belongs to: SDXL base for InstantIR's release.",
            )


def cross_attention_widths(unet: UNet2DConditionModel) -> dict[int, int]:
    """Channels of every cross-attention by its index among the U-Net's attention processors: down blocks, up blocks, middle."""
    return {index: _attention(unet, name).to_k.out_features for index, name in _cross_attentions(unet)}


def cross_attention_levels(unet: UNet2DConditionModel) -> dict[int, int]:
    """Which level, of those that have cross-attentions, each belongs to by its index: 0 for the finest; the middle block counts
    with the coarsest."""
    last = len(unet.down_blocks) - 1
    side = {"down_blocks": lambda block: block, "up_blocks": lambda block: last - block}
    found = {index: name.split(".") for index, name in _cross_attentions(unet)}
    levels = {index: side[part](int(block)) for index, (part, block, *_) in found.items() if part in side}
    present = sorted(set(levels.values())) or [last]
    return {index: present.index(levels.get(index, present[-1])) for index in found}


def _cross_attentions(unet: UNet2DConditionModel) -> list[tuple[int, str]]:
    return [(index, name) for index, name in enumerate(unet.attn_processors) if name.endswith("attn2.processor")]


def _attention(unet: UNet2DConditionModel, processor_name: str) -> Any:
    return unet.get_submodule(processor_name.removesuffix(".processor"))


def _told(widths: Mapping[int, int], time_width: int) -> str:
    channels = ", ".join(map(str, sorted(set(widths.values())))) or "no"
    return f"{len(widths)} cross-attentions of {channels} channels and a time embedding of {time_width}"
