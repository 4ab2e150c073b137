"""FluxIR written once more from the paper and from what Flux is: plain functions of named tensors, no module of diffusers.

Nothing of ours is used here, so that what agrees with it agrees with the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Flux:
    """The base and the adapter by their tensors; config: diffusers' of the transformer. ids [N + L, 3]: text, then image."""

    base: Weights
    adapter: Weights
    config: dict[str, Any]

    @property
    def blocks(self) -> int:
        return self.config["num_layers"] + self.config["num_single_layers"]

    def features(self, z_t: Tensor, z_lq: Tensor, p: Tensor, y: Tensor, t: Tensor, guidance: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """f_z [B, L, d] and f_p [B, N, d]."""
        own = self.adapter
        image = linear(own, "x_embedder", z_t) + linear(own, "control_in", z_lq)
        text = linear(own, "context_embedder", p + own["theta_p"])
        modulation = self.time(own, t, guidance, y + own["theta_y"])
        return self.double(own, "block", image, text, modulation, ids)

    def controls(self, features: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(z_c, p_c) for every block."""

        def se(name: str, x: Tensor) -> Tensor:
            return linear(self.adapter, f"{name}.excite", linear(self.adapter, f"{name}.squeeze", x))

        image, text = features
        return [(se(f"se_z.{index}", image), se(f"se_p.{index}", text)) for index in range(self.blocks)]

    def velocity(
        self,
        z_t: Tensor,
        p: Tensor,
        y: Tensor,
        t: Tensor,
        guidance: Tensor,
        ids: Tensor,
        after: list[tuple[Tensor, Tensor]] | None = None,
        before: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        image, text = linear(self.base, "x_embedder", z_t), linear(self.base, "context_embedder", p)
        modulation = self.time(self.base, t, guidance, y)
        for index in range(self.blocks):
            if before is not None:
                image, text = image + before[index][0], text + before[index][1]
            single = index - self.config["num_layers"]
            if single < 0:
                image, text = self.double(self.base, f"transformer_blocks.{index}", image, text, modulation, ids)
            else:
                joint = self.single(f"single_transformer_blocks.{single}", torch.cat([text, image], 1), modulation, ids)
                text, image = joint[:, : text.shape[1]], joint[:, text.shape[1] :]
            if after is not None:
                image, text = image + after[index][0], text + after[index][1]
        scale, shift = linear(self.base, "norm_out.linear", F.silu(modulation))[:, None].chunk(2, -1)
        return linear(self.base, "proj_out", plain_norm(image) * (1 + scale) + shift)

    def time(self, weights: Weights, t: Tensor, guidance: Tensor, y: Tensor) -> Tensor:
        """[B, d]: what modulates every block."""

        def mlp(part: str, x: Tensor) -> Tensor:
            name = f"time_text_embed.{part}"
            return linear(weights, f"{name}.linear_2", F.silu(linear(weights, f"{name}.linear_1", x)))

        embedded = mlp("timestep_embedder", waves(1000 * t)) + mlp("text_embedder", y)
        return embedded + mlp("guidance_embedder", waves(1000 * guidance)) if self.config["guidance_embeds"] else embedded

    def double(self, weights: Weights, name: str, image: Tensor, text: Tensor, modulation: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        streams = (image, text)
        norms, feeds = (f"{name}.norm1", f"{name}.norm1_context"), (f"{name}.ff", f"{name}.ff_context")
        told = [linear(weights, f"{norm}.linear", F.silu(modulation))[:, None].chunk(6, -1) for norm in norms]
        seen = [plain_norm(x) * (1 + m[1]) + m[0] for x, m in zip(streams, told, strict=True)]
        image_parts = [linear(weights, f"{name}.attn.to_{part}", seen[0]) for part in "qkv"]
        text_parts = [linear(weights, f"{name}.attn.add_{part}_proj", seen[1]) for part in "qkv"]
        names = (("norm_added_q", "norm_q"), ("norm_added_k", "norm_k"), None)
        joint = []
        for ours, theirs, norm in zip(image_parts, text_parts, names, strict=True):
            halves = [self.heads(part) for part in (theirs, ours)]
            if norm:
                halves = [rms(half, weights[f"{name}.attn.{which}.weight"]) for half, which in zip(halves, norm, strict=True)]
            joint.append(torch.cat(halves, dim=2))
        attended = self.attend(*joint, ids)
        length = text.shape[1]
        outs = (("to_out.0", attended[:, length:]), ("to_add_out", attended[:, :length]))
        mixed = [linear(weights, f"{name}.attn.{out}", part) for out, part in outs]
        results = []
        for x, m, change, feed in zip(streams, told, mixed, feeds, strict=True):
            x = x + m[2] * change
            inner = F.gelu(linear(weights, f"{feed}.net.0.proj", plain_norm(x) * (1 + m[4]) + m[3]), approximate="tanh")
            results.append(x + m[5] * linear(weights, f"{feed}.net.2", inner))
        return results[0], results[1]

    def single(self, name: str, joint: Tensor, modulation: Tensor, ids: Tensor) -> Tensor:
        base = self.base
        shift, scale, gate = linear(base, f"{name}.norm.linear", F.silu(modulation))[:, None].chunk(3, -1)
        seen = plain_norm(joint) * (1 + scale) + shift
        query, key, value = (self.heads(linear(base, f"{name}.attn.to_{part}", seen)) for part in "qkv")
        query, key = (rms(x, base[f"{name}.attn.norm_{part}.weight"]) for x, part in ((query, "q"), (key, "k")))
        inner = F.gelu(linear(base, f"{name}.proj_mlp", seen), approximate="tanh")
        return joint + gate * linear(base, f"{name}.proj_out", torch.cat([self.attend(query, key, value, ids), inner], -1))

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config["num_attention_heads"], -1)).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, ids: Tensor) -> Tensor:
        query, key = (turned(x, ids, self.config["axes_dims_rope"]) for x in (query, key))
        logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def plain_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def waves(values: Tensor) -> Tensor:
    """[B, 256]: cosines, then sines, of 128 frequencies from 1 down to nearly 1 / 10000."""
    angles = values[:, None] * torch.exp(-log(10000) * torch.arange(128) / 128)
    return torch.cat([angles.cos(), angles.sin()], -1)


def turned(x: Tensor, ids: Tensor, axes: list[int]) -> Tensor:
    """x [B, heads, tokens, channels]: every pair of channels turned by an angle, some pairs by each coordinate of the ids."""
    frequencies = [10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width) for width in axes]
    angles = [ids[:, axis, None].double() * speeds for axis, speeds in enumerate(frequencies)]
    turns = torch.polar(torch.ones(()).double(), torch.cat(angles, -1)).to(torch.complex64)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)
