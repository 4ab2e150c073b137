"""An AutoencoderKL as a list of layers, so that something can happen between them: tiles wait for each other at a GroupNorm.

Every tiled mode is a `Steps` for an activation of its own kind: a tensor, one tensor per tile, a tensor on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
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
# Two names of one function.
ACTIVATIONS = ("silu", "swish")


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
        """Whether what comes out has half the side."""
        return self.conv.stride[0] == 2

    @property
    def scale(self) -> Fraction:
        """Side of what comes out per side of what goes in."""
        return Fraction(2 if self.upsamples else 1, self.conv.stride[0])

    @property
    def reach(self) -> tuple[int, int]:
        """Rows (and columns) of the input before and after an output tile that it also depends on."""
        around = self.conv.kernel_size[0] // 2
        return (0, around) if self.downsamples else (around, around)


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
        """The GroupNorm before the attention."""
        norm: nn.GroupNorm = self.attention.group_norm
        return norm


Layer = Convolution | Residual | SelfAttention
Activation = TypeVar("Activation")


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of a GroupNorm's groups: float64 [groups] on the CPU."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor, groups: int) -> Statistics:
        """Those of one activation [1, C, h, w]."""
        variance, mean = torch.var_mean(x[0].float().reshape(groups, -1), dim=1, correction=0)
        return cls(mean.cpu().double(), variance.cpu().double())


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


@dataclass(frozen=True)
class Coder:
    """One half of a VAE. scale: side of its result per side of its input; width: channels at full resolution."""

    layers: Sequence[Layer]
    scale: Fraction
    width: int
    dtype: torch.dtype


def encoder_of(vae: AutoencoderKL) -> Coder:
    """Pixels [B, 3, H, W] in -1..1 to moments [B, 2C, h, w], not scaled. Raises BadValueError for other kinds of blocks."""
    _require_known(vae, vae.config.down_block_types)
    encoder = vae.encoder
    layers: list[Layer] = [Convolution(encoder.conv_in)]
    for block in encoder.down_blocks:
        layers += map(_residual, block.resnets)
        layers += [Convolution(sampler.conv) for sampler in block.downsamplers or ()]
    layers += [*_middle(encoder.mid_block), Convolution(encoder.conv_out, encoder.conv_norm_out)]
    if vae.quant_conv is not None:
        layers.append(Convolution(vae.quant_conv))
    return _coder(layers, encoder.conv_in.out_channels, encoder.conv_norm_out)


def decoder_of(vae: AutoencoderKL) -> Coder:
    """Latent [B, C, h, w], not scaled, to pixels [B, 3, H, W] in -1..1. Raises BadValueError for other kinds of blocks."""
    _require_known(vae, vae.config.up_block_types)
    decoder = vae.decoder
    layers: list[Layer] = [] if vae.post_quant_conv is None else [Convolution(vae.post_quant_conv)]
    layers += [Convolution(decoder.conv_in), *_middle(decoder.mid_block)]
    for block in decoder.up_blocks:
        layers += map(_residual, block.resnets)
        layers += [Convolution(sampler.conv, upsamples=True) for sampler in block.upsamplers or ()]
    layers.append(Convolution(decoder.conv_out, decoder.conv_norm_out))
    return _coder(layers, decoder.conv_out.in_channels, decoder.conv_norm_out)


def _coder(layers: Sequence[Layer], width: int, norm: nn.GroupNorm) -> Coder:
    # The norms keep the dtype that is computed in, also where the weights of convolutions are stored in fewer bits.
    scales = [layer.scale for layer in layers if isinstance(layer, Convolution)]
    return Coder(layers, prod(scales, start=Fraction(1)), width, norm.weight.dtype)


def _middle(block: UNetMidBlock2D) -> Iterator[Layer]:
    first, *others = block.resnets
    yield _residual(first)
    for attention, resnet in zip(block.attentions, others, strict=True):
        if attention is not None:
            yield SelfAttention(attention)
        yield _residual(resnet)


def _residual(block: ResnetBlock2D) -> Residual:
    return Residual(Convolution(block.conv1, block.norm1), Convolution(block.conv2, block.norm2), block.conv_shortcut)


def _require_known(vae: AutoencoderKL, names: Sequence[str]) -> None:
    unknown = sorted({*names, vae.config.act_fn} - {*BLOCKS, *ACTIVATIONS})
    if unknown:
        raise BadValueError(
            f"it is made of {', '.join(unknown)}, and tiles are known for {', '.join(BLOCKS)} and {ACTIVATIONS[0]} only.",
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


def normalise(x: Tensor, norm: nn.GroupNorm, statistics: Statistics) -> Tensor:
    """GroupNorm of x [B, C, ...] with statistics from elsewhere; computed in float32, in x's dtype."""
    mean, deviation = (
        values.repeat_interleave(x.shape[1] // norm.num_groups) for values in (statistics.mean, (statistics.variance + norm.eps).sqrt())
    )
    scale = norm.weight.cpu().double() / deviation
    shift = norm.bias.cpu().double() - mean * scale
    scale, shift = (factor.to(x.device, torch.float32).view(-1, *[1] * (x.ndim - 2)) for factor in (scale, shift))
    return torch.addcmul(shift, x.float(), scale).to(x)


def attend(attention: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """What normalised tokens [B, N, C] get from normalised tokens [B or 1, M, C], projected: [B, N, C]."""

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    query = heads(attention.to_q(queries))
    key, value = (heads(projection(context)).expand(len(query), -1, -1, -1) for projection in (attention.to_k, attention.to_v))
    found = F.scaled_dot_product_attention(query, key, value)
    projected: Tensor = attention.to_out[0](found.transpose(1, 2).flatten(2))
    return projected
