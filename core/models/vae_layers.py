"""An AutoencoderKL as a list of layers, so that something can happen between them: tiles wait for each other at a GroupNorm.

Every tiled mode is a `Steps` for an activation of its own kind: a tensor, one tensor per tile, a tensor on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadValueError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

BLOCKS = ("DownEncoderBlock2D", "UpDecoderBlock2D")


@dataclass(frozen=True)
class Convolution:
    """conv(upsampled(silu(norm(x)))): norm and nearest x2 upsampling only where the network has them.

    A stride of 2 is diffusers' downsampling, which pads one row below and one column to the right.
    """

    conv: nn.Conv2d
    norm: nn.GroupNorm | None = None
    upsamples: bool = False

    @property
    def downsamples(self) -> bool:
        return self.conv.stride[0] == 2


@dataclass(frozen=True)
class Residual:
    """x + second(first(x)), x through a 1 x 1 convolution where the channels change."""

    first: Convolution
    second: Convolution
    shortcut: nn.Conv2d | None


@dataclass(frozen=True)
class SelfAttention:
    """x + attention(norm(x)) over all positions."""

    attention: Attention

    @property
    def norm(self) -> nn.GroupNorm:
        norm: nn.GroupNorm = self.attention.group_norm
        return norm


Layer = Convolution | Residual | SelfAttention
Activation = TypeVar("Activation")


class Steps(Protocol[Activation]):
    """How one kind of activation passes the layers."""

    def convolve(self, x: Activation, layer: Convolution, added: Activation | None = None, shortcut: nn.Conv2d | None = None) -> Activation:
        """The convolution of x, plus `added` (through the shortcut, if there is one) where it ends a residual block."""

    def attend(self, x: Activation, layer: SelfAttention) -> Activation:
        """The attention layer with its residual connection."""


def run_layers(layers: Sequence[Layer], x: Activation, steps: Steps[Activation]) -> Activation:
    """x through all layers."""
    for layer in layers:
        if isinstance(layer, Residual):
            x = steps.convolve(steps.convolve(x, layer.first), layer.second, x, layer.shortcut)
        elif isinstance(layer, SelfAttention):
            x = steps.attend(x, layer)
        else:
            x = steps.convolve(x, layer)
    return x


def encoder_layers(vae: AutoencoderKL) -> list[Layer]:
    """Pixels [B, 3, H, W] in -1..1 to moments [B, 2C, h, w]. Raises BadValueError for blocks of another kind."""
    _require_known_blocks(vae.config.down_block_types)
    encoder = vae.encoder
    layers: list[Layer] = [Convolution(encoder.conv_in)]
    for block in encoder.down_blocks:
        layers += map(_residual, block.resnets)
        layers += [Convolution(sampler.conv) for sampler in block.downsamplers or ()]
    layers += [*_middle(encoder.mid_block), Convolution(encoder.conv_out, encoder.conv_norm_out)]
    return layers if vae.quant_conv is None else [*layers, Convolution(vae.quant_conv)]


def decoder_layers(vae: AutoencoderKL) -> list[Layer]:
    """Latent [B, C, h, w] (not scaled) to pixels [B, 3, H, W] in -1..1. Raises BadValueError for blocks of another kind."""
    _require_known_blocks(vae.config.up_block_types)
    decoder = vae.decoder
    layers: list[Layer] = [] if vae.post_quant_conv is None else [Convolution(vae.post_quant_conv)]
    layers += [Convolution(decoder.conv_in), *_middle(decoder.mid_block)]
    for block in decoder.up_blocks:
        layers += map(_residual, block.resnets)
        layers += [Convolution(sampler.conv, upsamples=True) for sampler in block.upsamplers or ()]
    return [*layers, Convolution(decoder.conv_out, decoder.conv_norm_out)]


def _middle(block: UNetMidBlock2D) -> Iterator[Layer]:
    first, *others = block.resnets
    yield _residual(first)
    for attention, resnet in zip(block.attentions, others, strict=True):
        if attention is not None:
            yield SelfAttention(attention)
        yield _residual(resnet)


def _residual(block: ResnetBlock2D) -> Residual:
    return Residual(Convolution(block.conv1, block.norm1), Convolution(block.conv2, block.norm2), block.conv_shortcut)


def _require_known_blocks(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(BLOCKS))
    if unknown:
        raise BadValueError(
            f"its blocks are {', '.join(unknown)}, and tiles are known for {' and '.join(BLOCKS)} only.",
            where="VAE",
            way_out="Choose a tile that holds the whole picture, or another VAE.",
        )


def apply_convolution(x: Tensor, layer: Convolution) -> Tensor:
    """The layer without its norm on [B, C, h, w], zero padding at the sides, as diffusers computes it."""
    if layer.upsamples:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if layer.downsamples:
        x = F.pad(x, (0, 1, 0, 1))
    convolved: Tensor = layer.conv(x)
    return convolved


def normalise(x: Tensor, norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> Tensor:
    """GroupNorm of x [B, C, h, w] with statistics [groups] from elsewhere; computed in float32, in x's dtype."""
    per_group = x.shape[1] // norm.num_groups
    deviation = (variance.double() + norm.eps).rsqrt().repeat_interleave(per_group)
    scale = deviation * norm.weight.to(deviation)
    shift = norm.bias.to(deviation) - mean.double().repeat_interleave(per_group) * scale
    scale, shift = (factor.to(x.device, torch.float32)[:, None, None] for factor in (scale, shift))
    return (x.float() * scale + shift).to(x)


def attend(attention: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """What normalised tokens [B, N, C] get from normalised tokens [B, M, C], projected: [B, N, C]."""

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    query, key, value = attention.to_q(queries), attention.to_k(context), attention.to_v(context)
    found = F.scaled_dot_product_attention(heads(query), heads(key), heads(value))
    projected: Tensor = attention.to_out[0](found.transpose(1, 2).flatten(2))
    return projected
