"""One-step networks as they are published against as we run them: seconds, memory, and the ratio. Part of `make bench`.

As published: adapters beside the weights, and what prompt and timestep decide computed at every call. As we run them: adapters
merged, constants folded. Random weights; both must say the same. The two take turns, because other work disturbs a machine, and
the fastest call of each counts; what a process of its own needs while it restores is measured where Linux tells it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from kintsugi.core.methods import gendr, instarevive, tsd_sr
from kintsugi.core.models.folding import memory_of
from kintsugi.core.models.mini import build_pixart, build_sd3_transformer, build_unet
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.weights.files import build_network
from kintsugi.core.weights.lora import Adapter, adapter_shapes, merge
from kintsugi.core.weights.tsd_sr import RANK, TRANSFORMER_TARGETS
from kintsugi.headless.console import human_size, say, say_table
from torch import Tensor, nn

THREADS = 2
ROUNDS = {"tiny": 20, "mid": 9}
SIZES = tuple(ROUNDS)
WAYS = ("published", "ours")
# Both ways say the same; float32 adds in another order.
AGREEMENT = 1e-4
# Below this the libraries' own memory says more than the network's.
LEAST_TOLD = 10_000_000
# glibc keeps much of what is freed after loading, as large as it likes; told so it gives it back, in both ways.
RETURNS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Running:
    """A network in memory and a call of it on one latent."""

    network: nn.Module
    call: Callable[[], Tensor]


class Subject(Protocol):
    """A method at one size with random weights: the same ones whichever way it is built."""

    def published(self) -> Running: ...

    def ours(self) -> Running: ...


# --- the methods


@dataclass(frozen=True)
class TsdSr:
    """Stable Diffusion 3's transformer with an adapter of that rank on a latent of side x side and a prompt of that length."""

    config: dict[str, Any]
    rank: int
    side: int
    tokens: int

    def published(self) -> Running:
        from peft import LoraConfig

        base, adapter, prompt, latent = self._drawn()
        network = build_network(partial(build_sd3_transformer, self.config), base, "random")
        network.add_adapter(LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=list(TRANSFORMER_TARGETS)))
        factors = {name.replace(".default.", "."): parameter for name, parameter in network.named_parameters()}
        for name, tensor in adapter.items():
            factors[name.removeprefix("transformer.")].data = tensor
        timestep = torch.tensor([1000.0])
        return Running(network, lambda: latent - network(latent, prompt.tokens, prompt.pooled, timestep).sample)

    def ours(self) -> Running:
        base, adapter, prompt, latent = self._drawn()
        merged = merge(base, Adapter(adapter, TRANSFORMER_TARGETS, self.rank, "random"), torch.float32)
        network = build_network(partial(build_sd3_transformer, self.config), merged, "random")
        method = tsd_sr.TsdSr(network, prompt, tsd_sr.OneStepConstants()).eval()
        method.fold()
        return Running(network, lambda: method.restore_latent(latent, None))

    def _drawn(self) -> tuple[dict[str, Tensor], dict[str, Tensor], PromptEmbedding, Tensor]:
        """Weights, adapter, prompt and latent."""
        torch.manual_seed(0)
        base = dict(build_sd3_transformer(self.config).state_dict())
        shapes = adapter_shapes(base, TRANSFORMER_TARGETS, self.rank)
        adapter = {name: torch.randn(shape).div_(torch.tensor(shape[1:]).prod().sqrt() * 4) for name, shape in shapes.items()}
        prompt = PromptEmbedding(
            torch.randn(1, self.tokens, self.config["joint_attention_dim"]), torch.randn(1, self.config["pooled_projection_dim"])
        )
        return base, adapter, prompt, torch.randn(1, self.config["in_channels"], self.side, self.side)


class Folding(ABC):
    """A method without adapters: all that we do differently is to fold its constants."""

    @abstractmethod
    def drawn(self) -> tuple[gendr.GenDR | instarevive.InstaRevive, nn.Module, Tensor]:
        """The method with random weights, its network, and a latent."""

    def published(self) -> Running:
        method, network, latent = self.drawn()
        return Running(network, torch.inference_mode()(lambda: method(latent)))

    def ours(self) -> Running:
        method, network, latent = self.drawn()
        method.fold()
        return Running(network, lambda: method.restore_latent(latent, None))


@dataclass(frozen=True)
class GenDR(Folding):
    """The U-Net of that configuration on a latent of side x side and a prompt of 77 tokens."""

    config: dict[str, Any]
    side: int

    def drawn(self) -> tuple[gendr.GenDR, nn.Module, Tensor]:
        torch.manual_seed(0)
        unet, prompt = build_unet(self.config), torch.randn(1, 77, self.config["cross_attention_dim"])
        method = gendr.GenDR(unet, prompt, gendr.OneStepConstants()).eval()
        return method, method.unet, torch.randn(1, self.config["in_channels"], self.side, self.side)


@dataclass(frozen=True)
class InstaRevive(Folding):
    """PixArt's transformer of that configuration on a latent of side x side and a prompt of that length."""

    config: dict[str, Any]
    side: int
    tokens: int

    def drawn(self) -> tuple[instarevive.InstaRevive, nn.Module, Tensor]:
        torch.manual_seed(0)
        transformer, prompt = build_pixart(self.config), PromptEmbedding(torch.randn(1, self.tokens, self.config["caption_channels"]))
        method = instarevive.InstaRevive(transformer, prompt, instarevive.OneStepConstants()).eval()
        return method, method.transformer, torch.randn(1, self.config["in_channels"], self.side, self.side)


def sd3(layers: int, heads: int, head_width: int, text: int, pooled: int, positions: int) -> dict[str, Any]:
    return {
        "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": layers, "num_attention_heads": heads,
        "attention_head_dim": head_width, "joint_attention_dim": text, "caption_projection_dim": heads * head_width,
        "pooled_projection_dim": pooled, "pos_embed_max_size": positions,
    }  # fmt: skip


def unet(channels: list[int], text: int, head_width: int, groups: int) -> dict[str, Any]:
    levels = len(channels)
    return {
        "sample_size": 64, "in_channels": 16, "out_channels": 16, "block_out_channels": channels, "norm_num_groups": groups,
        "down_block_types": ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1), "layers_per_block": 2, "cross_attention_dim": text,
        "attention_head_dim": [width // head_width for width in channels], "use_linear_projection": True,
    }  # fmt: skip


def pixart(layers: int, heads: int, head_width: int, text: int) -> dict[str, Any]:
    return {
        "sample_size": 64, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": layers, "num_attention_heads": heads,
        "attention_head_dim": head_width, "cross_attention_dim": heads * head_width, "caption_channels": text, "norm_eps": 1e-6,
        "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "attention_bias": True, "num_embeds_ada_norm": 1000,
    }  # fmt: skip


SUBJECTS: dict[str, dict[str, Subject]] = {
    "tsd-sr": {
        "tiny": TsdSr(sd3(2, 2, 16, 48, 40, 32), rank=4, side=16, tokens=11),
        "mid": TsdSr(sd3(8, 12, 64, 4096, 2048, 192), rank=RANK, side=64, tokens=333),
    },
    "gendr": {
        "tiny": GenDR(unet([16, 32], 32, 8, 8), side=16),
        "mid": GenDR(unet([160, 320, 640, 640], 1024, 32, 32), side=64),
    },
    "instarevive": {
        "tiny": InstaRevive(pixart(2, 2, 16, 48), side=16, tokens=11),
        "mid": InstaRevive(pixart(8, 12, 64, 4096), side=64, tokens=120),
    },
}


# --- measuring


@dataclass(frozen=True)
class Result:
    """Seconds of the fastest call, bytes of parameters and buffers, and of a process for a call (None if unknown)."""

    seconds: float
    weights: int
    peak: int | None


def measure(method: str, size: str) -> dict[str, Result]:
    """Both ways, in turns. The processes come first, while this one holds nothing."""
    peaks = {way: peak_of_a_process(method, size, way) for way in WAYS}
    running = {way: built(method, size, way) for way in WAYS}
    published, ours = (running[way].call() for way in WAYS)
    if (published - ours).abs().max() > AGREEMENT * published.abs().max():
        raise AssertionError(f"{method}, {size}: the two ways do not say the same")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS[size]):
        for way in WAYS:
            started = time.perf_counter()
            running[way].call()
            seconds[way].append(time.perf_counter() - started)
    return {way: Result(min(seconds[way]), memory_of(running[way].network), peaks[way]) for way in WAYS}


def built(method: str, size: str, way: str) -> Running:
    subject = SUBJECTS[method][size]
    running = subject.published() if way == "published" else subject.ours()
    return Running(running.network, torch.inference_mode()(running.call))


def peak_of_a_process(method: str, size: str, way: str) -> int | None:
    command = [sys.executable, __file__, "--peak", method, size, way]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **RETURNS_MEMORY}).stdout)
    return None if answer is None else int(answer)


def peak(method: str, size: str, way: str) -> int | None:
    """Bytes that this process takes at most while it restores, once it has loaded, beyond what it had after a tiny one, which
    brings the libraries in; None where that is too little or nobody tells."""
    if not RESET.exists():
        return None
    built(method, "tiny", way).call()
    before = resident("VmRSS")
    running = built(method, size, way)
    gc.collect()
    RESET.write_text("5")
    running.call()
    found = resident("VmHWM") - before
    return found if found > LEAST_TOLD else None


def resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def rows_of(method: str, size: str) -> list[tuple[str, ...]]:
    results = measure(method, size)
    published, ours = (results[way] for way in WAYS)
    lines = [(way, f"{found.seconds:.4f}", human_size(found.weights), sized(found.peak)) for way, found in results.items()]
    ratio = f"{ours.peak / published.peak:.2f}" if ours.peak and published.peak else "-"
    lines.append(("ratio", f"{ours.seconds / published.seconds:.2f}", f"{ours.weights / published.weights:.2f}", ratio))
    return [(method, size, *line) for line in lines]


def sized(amount: int | None) -> str:
    return "-" if amount is None else human_size(amount)


def main() -> None:
    parser = argparse.ArgumentParser(description="One-step networks as published against as we run them.")
    parser.add_argument("--peak", nargs=3, metavar=("METHOD", "SIZE", "WAY"), help="print the memory of one way in this process")
    parser.add_argument("--methods", nargs="*", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    if chosen.peak:
        say(json.dumps(peak(*chosen.peak)))
        return
    rows = [row for method in chosen.methods for size in chosen.sizes for row in rows_of(method, size)]
    say_table(("network", "size", "way", "seconds", "weights", "memory of a call"), rows)


if __name__ == "__main__":
    main()
