"""InstaRevive's parts written once more from the paper: diffusers networks, attention over whole pictures, plain loops.

Nothing of ours is used here, so that what agrees with it agrees with the original.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]


def swinir(weights: dict[str, Tensor], config: dict[str, Any], picture: Tensor) -> Tensor:
    """SwinIR with nearest and convolve on a picture [1, 3, H, W]; every window is a block of one dense attention matrix."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    single = config["img_size"] <= config["window_size"]
    window = config["img_size"] if single else config["window_size"]
    first = conv("conv_first.1", F.pixel_unshuffle((picture - MEAN) * config["img_range"], config["unshuffle_scale"]))
    height, width = first.shape[-2:]
    tokens = norm("patch_embed.norm", first.flatten(2).transpose(1, 2))
    for group, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
        entered = tokens
        for index in range(depth):
            name = f"layers.{group}.residual_group.blocks.{index}"
            shift = 0 if single or index % 2 == 0 else config["window_size"] // 2
            bias = dense_bias(weights[f"{name}.attn.relative_position_bias_table"], height, width, window, shift)
            tokens = tokens + attention(weights, f"{name}.attn", norm(f"{name}.norm1", tokens), heads, bias)
            hidden = F.gelu(F.linear(norm(f"{name}.norm2", tokens), weights[f"{name}.mlp.fc1.weight"], weights[f"{name}.mlp.fc1.bias"]))
            tokens = tokens + F.linear(hidden, weights[f"{name}.mlp.fc2.weight"], weights[f"{name}.mlp.fc2.bias"])
        tokens = entered + conv(f"layers.{group}.conv", tokens.transpose(1, 2).unflatten(2, (height, width))).flatten(2).transpose(1, 2)
    body = norm("norm", tokens).transpose(1, 2).unflatten(2, (height, width))
    x = F.leaky_relu(conv("conv_before_upsample.0", conv("conv_after_body", body) + first), 0.01)
    for step in range(1, config["sf"].bit_length()):
        x = F.leaky_relu(conv(f"conv_up{step}", x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2)) / config["img_range"] + MEAN


def dense_bias(table: Tensor, height: int, width: int, window: int, shift: int) -> Tensor:
    """[heads, P, P] for all pixels of the grid: the bias of two pixels in one window, -100 more where only rolling the grid
    brought them together, and minus infinity for pixels of two windows."""
    places = list(product(range(height), range(width)))
    rolled = [((y - shift) % height, (x - shift) % width) for y, x in places]
    bias = torch.full((table.shape[1], len(places), len(places)), -torch.inf)
    for i, (y, x) in enumerate(rolled):
        for j, (v, u) in enumerate(rolled):
            if (y // window, x // window) == (v // window, u // window):
                row = (y - v + window - 1) * (2 * window - 1) + x - u + window - 1
                apart = (places[i][0] < shift) != (places[j][0] < shift) or (places[i][1] < shift) != (places[j][1] < shift)
                bias[:, i, j] = table[row] - (100 if apart else 0)
    return bias


def attention(weights: dict[str, Tensor], name: str, tokens: Tensor, heads: int, bias: Tensor) -> Tensor:
    projected = F.linear(tokens, weights[f"{name}.qkv.weight"], weights[f"{name}.qkv.bias"])
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=2))
    logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias
    return F.linear((logits.softmax(-1) @ value).transpose(1, 2).flatten(2), weights[f"{name}.proj.weight"], weights[f"{name}.proj.bias"])


def one_step(transformer: Any, latent: Tensor, prompt: Tensor, mask: Tensor, timestep: int, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """eps and x_0; mask [1, 1, N] is added to the logits, mask [1, N] hides what is 0."""
    output = transformer(latent, encoder_hidden_states=prompt, timestep=torch.tensor([timestep]), encoder_attention_mask=mask).sample
    eps = output.chunk(2, dim=1)[0]
    return eps, (latent - (1 - alphas[timestep]) ** 0.5 * eps) / alphas[timestep] ** 0.5


def wavelet(content: Tensor, style: Tensor) -> Tensor:
    """The five high bands of the content on the low band of the style."""
    profile = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(profile, profile).expand(content.shape[1], 1, 3, 3)
    low, high = [content, style], torch.zeros_like(content)
    for level in range(5):
        reach = 2**level
        padded = [F.pad(band, [reach] * 4, mode="replicate") for band in low]
        blurred = [F.conv2d(band, kernel, groups=content.shape[1], dilation=reach) for band in padded]
        high, low = high + low[0] - blurred[0], blurred
    return high + low[1]


def adain(content: Tensor, style: Tensor) -> Tensor:
    """The content with the style's mean and deviation, per picture and channel."""
    means = [picture.flatten(2).mean(2)[..., None, None] for picture in (content, style)]
    deviations = [(picture.flatten(2).var(2, unbiased=True) + 1e-5).sqrt()[..., None, None] for picture in (content, style)]
    return (content - means[0]) / deviations[0] * deviations[1] + means[1]


def tile_coordinates(height: int, width: int, tile: int, stride: int) -> list[list[int]]:
    """Top, bottom, left and right of every window, row by row."""

    def spans(length: int) -> list[list[int]]:
        found, start = [], 0
        while start + tile < length:
            found.append([start, start + tile])
            start += stride
        last = [length - tile, length]
        return [*found, last]

    return [[*rows, *columns] for rows in spans(height) for columns in spans(width)]
