"""A VAE that starts as a linear transform: block DCT on the way in, interpolated block means on the way out.

From a random start an AutoencoderKL needs most of a small budget to find out that colours matter: its last group
normalisations remove mean and contrast. Here residual branches start at zero, and before both of those normalisations
every signal a is laid out as the pair +a, -a beside a pair of large constants: the constants dominate the group's
deviation, so that its gain hardly depends on the picture, and silu(a) - silu(-a) = a makes the activation linear.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CONSTANT = 4.0
QUIET_LOG_VARIANCE = -8.0
SIDE = 4
LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))


def start_linear(vae: AutoencoderKL) -> None:
    """Initialise a three-level AutoencoderKL (4 pixels per latent pixel, >= 16 latent channels), in place."""
    from diffusers.models.resnet import ResnetBlock2D

    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)
    with torch.no_grad():
        _start_encoder(vae.encoder, vae.config.latent_channels, vae.config.norm_num_groups)
        _start_decoder(vae.decoder, vae.config.norm_num_groups)


def block_transform() -> Tensor:
    """[16, 3, 4, 4]: ten luma and two times three chroma coefficients of a 4x4 DCT, scaled to unit deviation on photos."""
    positions = torch.arange(SIDE) + 0.5
    waves = torch.stack([torch.cos(math.pi * k * positions / SIDE) for k in range(SIDE)])
    order = sorted(((u, v) for u in range(SIDE) for v in range(SIDE)), key=lambda uv: (uv[0] + uv[1], uv))
    colours, rows = torch.tensor(LUMA_CHROMA), []
    for plane, count in ((0, 10), (1, 3), (2, 3)):
        for u, v in order[:count]:
            wave = torch.outer(waves[u], waves[v])
            # Amplitudes of photos fall about as one over frequency; chroma has a quarter of luma's deviation.
            gain = (4.0 if plane == 0 else 16.0) if u + v == 0 else (48.0 if plane == 0 else 200.0) * (u + v)
            rows.append(gain * colours[plane][:, None, None] * wave / SIDE**2)
    return torch.stack(rows)


def _start_encoder(encoder: Any, latent_channels: int, groups: int) -> None:
    first, second = encoder.down_blocks[0].downsamplers[0].conv, encoder.down_blocks[1].downsamplers[0].conv
    encoder.conv_in.weight[:12] = 0
    encoder.conv_in.bias[:12] = 0
    first.weight[:12] = 0
    first.bias[:12] = 0
    shortcut = encoder.down_blocks[1].resnets[0].conv_shortcut
    shortcut.weight[:12] = 0
    shortcut.bias[:12] = 0
    for color in range(3):
        for y in range(2):
            for x in range(2):
                channel = 4 * color + 2 * y + x
                encoder.conv_in.weight[channel, color, 1 + y, 1 + x] = 2.0**-1
                encoder.conv_in.bias[channel] = 0
                first.weight[channel, channel, 0, 0] = 1
                shortcut.weight[channel, channel] = 1
    transform = block_transform()
    slots, constants = _pair_slots(second.out_channels, groups, len(transform))
    _lay_out_constants(second, constants)
    for row, (plus, minus) in zip(transform, slots, strict=True):
        taps = row.reshape(3, 2, 2, 2, 2).permute(0, 2, 4, 1, 3).reshape(12, 2, 2)
        for slot, sign in ((plus, 1.0), (minus, -1.0)):
            second.weight[slot] = 0
            second.bias[slot] = 0
            second.weight[slot, :12, :2, :2] = sign * taps
    _read_pairs(encoder.conv_out, slots, second.out_channels // groups)
    encoder.conv_out.weight[latent_channels:] = 0
    encoder.conv_out.bias[latent_channels:] = QUIET_LOG_VARIANCE


def _start_decoder(decoder: Any, groups: int) -> None:
    _keep_channels(decoder.conv_in, torch.eye(3))
    decoder.conv_in.weight[:3] = 0
    color = torch.linalg.inv(torch.tensor(LUMA_CHROMA))
    # Where block_transform puts the three block means, and what it scaled them by.
    for source, plane, gain in ((0, 0, 4.0), (10, 1, 16.0), (13, 2, 16.0)):
        decoder.conv_in.weight[:3, source, 1, 1] = 2 * color[:, plane] / gain
    tent = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks[:2]:
        _keep_channels(block.upsamplers[0].conv, torch.outer(tent, tent))
    shortcut = decoder.up_blocks[2].resnets[0].conv_shortcut
    slots, constants = _pair_slots(shortcut.out_channels, groups, 3)
    _lay_out_constants(shortcut, constants)
    for channel, (plus, minus) in enumerate(slots):
        for slot, sign in ((plus, 1.0), (minus, -1.0)):
            shortcut.weight[slot] = 0
            shortcut.bias[slot] = 0
            shortcut.weight[slot, channel] = sign
    _read_pairs(decoder.conv_out, slots, shortcut.out_channels // groups)


def _keep_channels(conv: Any, kernel: Tensor) -> None:
    """Channels 0..2 pass through `conv` on their own, each under the kernel [3, 3]."""
    conv.weight[:3] = 0
    conv.bias[:3] = 0
    for channel in range(3):
        conv.weight[channel, channel] = kernel


def _pair_slots(channels: int, groups: int, signals: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Channel pairs for signals, and one pair of constants at the end of every group that holds signals."""
    size = channels // groups
    pairs = [(first, first + 1) for first in range(0, channels, 2)]
    constants = [(group * size + size - 2, group * size + size - 1) for group in range(groups)]
    free = [pair for pair in pairs if pair not in constants]
    used = free[:signals]
    return used, [pair for pair in constants if any(pair[0] // size == plus // size for plus, _ in used)]


def _lay_out_constants(conv: Any, pairs: list[tuple[int, int]]) -> None:
    for plus, minus in pairs:
        conv.weight[[plus, minus]] = 0
        conv.bias[plus], conv.bias[minus] = CONSTANT, -CONSTANT


def _read_pairs(conv: Any, slots: list[tuple[int, int]], group_size: int) -> None:
    """Output i of a 3x3 convolution after normalisation and SiLU is signal i again."""
    gain = CONSTANT * math.sqrt(2 / group_size)
    conv.weight[: len(slots)] = 0
    conv.bias[: len(slots)] = 0
    for output, (plus, minus) in enumerate(slots):
        conv.weight[output, plus, 1, 1] = gain
        conv.weight[output, minus, 1, 1] = -gain
