"""InstantIR as it is published against as we run it: seconds of a sampling run and the ratio. Part of `make bench`.

As published: the Previewer's adapter as products beside the weights, and the Resampler and the keys and values of text and image
computed in every call of the U-Net. As we run it: the adapter merged, and all of that computed once per run. Random weights; both
must say the same. They take turns, because other work disturbs a machine, and of every step and call the fastest counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from kintsugi.core.diffusion import ddpm_schedule, scaled_linear_betas
from kintsugi.core.methods.instantir import Options, fast, sample
from kintsugi.core.methods.instantir_assembly import assembled, conditions_of
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR, Steering
from kintsugi.core.methods.instantir_parts import LqContext, Perceptor, Previewer
from kintsugi.core.models.aggregator import Aggregator
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.dcp import DCP, cross_attention_widths
from kintsugi.core.models.lora_switch import Factors
from kintsugi.core.models.mini import build_unet, build_vae, vae_config
from kintsugi.core.models.offload import place
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.resampler import ResamplerConfig
from kintsugi.core.randomness import draw_noise, picture_generators
from kintsugi.core.weights.previewer import RANK, previewer_targets
from kintsugi.core.weights.unet_lora import factor_shapes
from kintsugi.headless.console import say, say_table
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

THREADS = 2
ROUNDS = {"tiny": 3, "mid": 5}
OPTIONS = Options(steps=4)
TIMESTEP = 501
# Both ways say the same; float32 adds in another order.
AGREEMENT = 1e-4
# Stands for the image encoder, which runs once per picture and has no part in this.
ENCODER = Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
TEXT_TOKENS, IMAGE_TOKENS, SIZE_WIDTH = 77, 257, 32


@dataclass(frozen=True)
class Size:
    """SDXL's form at other widths. channels: of the three levels; side: of the latent; depths: transformer layers of a block per
    level; text, pooled: widths of the prompt; resampler; rank: of the Previewer's adapter."""

    channels: tuple[int, int, int]
    side: int
    depths: tuple[int, int, int]
    text: int
    pooled: int
    resampler: ResamplerConfig
    rank: int

    def unet(self) -> dict[str, Any]:
        """diffusers' configuration."""
        return {
            "sample_size": self.side, "in_channels": 4, "out_channels": 4, "block_out_channels": list(self.channels), "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": list(self.depths), "attention_head_dim": [width // 32 for width in self.channels],
            "cross_attention_dim": self.text, "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_WIDTH, "projection_class_embeddings_input_dim": self.pooled + 6 * SIZE_WIDTH,
        }  # fmt: skip


# All widths of SDXL and the DCP divided by five; DINOv2-large sees for it as it is.
SIZES = {
    "tiny": Size((32, 32, 64), 8, (1, 1, 2), 32, 32, ResamplerConfig(32, 1, 16, 2, 8, 1024, 32), 4),
    "mid": Size((64, 128, 256), 64, (1, 2, 4), 416, 256, ResamplerConfig(256, 4, 64, 4, 64, 1024, 416), RANK),
}


@dataclass(frozen=True)
class Published(InstantIR):
    """The same networks, which compute everything anew in every call. image_tokens: the encoder's, of every row."""

    image_tokens: Tensor

    def _predict(self, z: Tensor, timestep: Tensor, conditions: Conditions, residuals: list[Tensor]) -> Tensor:
        return super()._predict(z, timestep, conditions._replace(image_keys=self.unet.image_keys(self.image_tokens)), residuals)


@dataclass(frozen=True)
class Subject:
    """Random parts of one size and what they are asked."""

    prior: Prior
    context: LqContext
    factors: dict[str, Factors]
    rank: int
    aggregator: Aggregator
    degraded: Tensor
    prompt: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def drawn(cls, size: Size) -> Subject:
        torch.manual_seed(0)
        unet = place(build_unet(size.unet()), torch.float32)
        dcp = place(DCP(cross_attention_widths(unet), unet.time_embedding.linear_2.out_features, size.resampler), torch.float32)
        aggregator = place(randomised(Aggregator(build_unet(size.unet()))), torch.float32)
        schedule = ddpm_schedule(scaled_linear_betas())
        codec = LatentCodec(build_vae(vae_config((8, 8), 4, 1, 4)))
        encoded = torch.randn(2, IMAGE_TOKENS, size.resampler.embedding_dim).split(1)
        shapes = {name: factor_shapes(layer, size.rank) for name, layer in previewer_targets(unet, dcp)}
        return cls(
            Prior("sdxl", codec, lambda: unet, None, schedule),
            LqContext(Perceptor("random", dcp, Dinov2Model(ENCODER)), *encoded),
            {name: Factors(*(torch.randn(shape) / shape[1] ** 0.5 for shape in pair)) for name, pair in shapes.items()},
            size.rank,
            aggregator,
            torch.randn(1, 4, size.side, size.side),
            (torch.randn(2, TEXT_TOKENS, size.text), torch.randn(2, size.pooled), torch.tensor([[8.0 * size.side] * 6] * 2)),
        )

    @contextmanager
    def running(self, merged: bool) -> Iterator[tuple[InstantIR, Conditions]]:
        """The networks as we run them, for a guided batch."""
        with assembled(self.prior, self.context, self._previewer(merged), self.aggregator) as networks:
            yield networks, conditions_of(networks, self.image_tokens, *self.prompt)

    @property
    def image_tokens(self) -> Tensor:
        return torch.cat([self.context.blank, self.context.tokens])

    def ours(self, options: Options) -> Iterator[Tensor]:
        """The latent after every step of a run; the first one begins with assembling it."""
        with self.running(merged=True) as (networks, conditions):
            yield from self._sampled(networks, conditions, options)

    def published(self, options: Options) -> Iterator[Tensor]:
        """The same of a run that keeps nothing from one call to the next."""
        text, pooled, size_ids = self.prompt
        nothing = text[:, 0, :0]
        with assembled(self.prior, self.context, self._previewer(merged=False), self.aggregator) as networks:
            networks.unet.resident = False
            everything = Published(networks.unet, networks.previewer, networks.aggregator, networks.schedule, self.image_tokens)
            yield from self._sampled(everything, Conditions(pooled, size_ids, text, nothing, nothing, nothing, nothing), options)

    def _previewer(self, merged: bool) -> Previewer:
        return Previewer("random", lambda *_: self.factors, 1 / self.rank, merged)

    def _sampled(self, networks: InstantIR, conditions: Conditions, options: Options) -> Iterator[Tensor]:
        generators = picture_generators(0, 1)
        steps = sample(networks, self.degraded, conditions, options, lambda: draw_noise(generators, self.degraded.shape[1:]))
        return (step.z_next for step in steps)


def randomised(aggregator: Aggregator) -> Aggregator:
    """Adding something: its residuals start at zero."""
    for residual in (*aggregator.controlnet_down_blocks, aggregator.controlnet_mid_block):
        nn.init.normal_(residual[1].weight, std=residual[1].in_channels ** -0.5)
    return aggregator


# --- measuring


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_of_steps(latents: Iterator[Tensor]) -> tuple[list[float], Tensor]:
    """Of every step, and the last latent."""
    seconds = []
    started = time.perf_counter()
    for latent in latents:
        seconds.append(time.perf_counter() - started)
        last, started = latent, time.perf_counter()
    return seconds, last


@dataclass(frozen=True)
class Result:
    """calls: seconds of the fastest guided call of each network; runs: of the fastest steps of each run together; differences: of
    its latent to the published way's, largest over largest value."""

    calls: dict[str, float]
    runs: dict[str, float]
    differences: dict[str, float]


def measure(size: str) -> Result:
    """Everything in turns. Raises AssertionError when the two ways do not say the same."""
    subject = Subject.drawn(SIZES[size])
    calls: list[dict[str, float]] = []
    steps: dict[str, list[list[float]]] = {"published": [], "ours": [], "fast": []}
    latents: dict[str, Tensor] = {}
    for _ in range(ROUNDS[size]):
        calls.append(calls_of(subject))
        runs = (subject.published(OPTIONS), subject.ours(OPTIONS), subject.ours(fast(OPTIONS)))
        for name, run in zip(steps, runs, strict=True):
            seconds, latents[name] = seconds_of_steps(run)
            steps[name].append(seconds)
    expected = latents["published"]
    differences = {name: float((found - expected).abs().max() / expected.abs().max()) for name, found in latents.items()}
    if not differences["ours"] <= AGREEMENT:
        raise AssertionError(f"the two ways differ by {differences['ours']:.1e}")
    fastest = {name: min(taken[name] for taken in calls) for name in calls[0]}
    return Result(fastest, {name: sum(map(min, zip(*rounds, strict=True))) for name, rounds in steps.items()}, differences)


def calls_of(subject: Subject) -> dict[str, float]:
    """Seconds of one guided call of each network, the Previewer's merged as well as live."""
    rows = torch.cat([subject.degraded] * 2)
    timestep = torch.full((2,), TIMESTEP)
    with subject.running(merged=False) as (networks, conditions):
        live = seconds_of(lambda: networks.preview(rows, timestep, conditions))
    with subject.running(merged=True) as (networks, conditions):
        steering = Steering(rows, rows, torch.ones(2))
        residuals = networks.residuals(steering, timestep, conditions)
        return {
            "live": live,
            "Previewer": seconds_of(lambda: networks.preview(rows, timestep, conditions)),
            "Aggregator": seconds_of(lambda: networks.residuals(steering, timestep, conditions)),
            "U-Net": seconds_of(lambda: networks.denoise(rows, timestep, conditions, None, residuals)),
        }


def rows_of(result: Result) -> list[tuple[str, ...]]:
    def row(what: str, before: float, after: float, bound: str) -> tuple[str, ...]:
        return what, f"{before:.3f} s", f"{after:.3f} s", f"{after / before:.2f}", bound

    run = f"a run of {OPTIONS.steps} steps"
    return [
        row("a preview, adapter live and merged", result.calls["live"], result.calls["Previewer"], "0.95"),
        row(run, result.runs["published"], result.runs["ours"], "0.98"),
        row(f"{run}, fast preset", result.runs["published"], result.runs["fast"], "0.75"),
        ("largest difference of the result", "-", "-", f"{result.differences['ours']:.0e}", f"{AGREEMENT:.0e}"),
        ("largest difference, fast preset", "-", "-", f"{result.differences['fast']:.0e}", "-"),
    ]


def shares(result: Result) -> str:
    """Of the three networks in a step as we run it."""
    parts = {name: seconds for name, seconds in result.calls.items() if name != "live"}
    return ", ".join(f"{name} {100 * seconds / sum(parts.values()):.0f} %" for name, seconds in parts.items())


def told(size: Size) -> str:
    """What was measured, in words."""
    channels = "/".join(map(str, size.channels))
    return (
        f"InstantIR: SDXL's form at three levels of {channels} channels, adapter of rank {size.rank}, latent {size.side} x {size.side}, "
        f"guidance {OPTIONS.guidance:g}, fp32, {torch.get_num_threads()} threads, random weights."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="InstantIR as published against as we run it.")
    parser.add_argument("--size", choices=list(SIZES), default="mid")
    size = parser.parse_args().size
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        result = measure(size)
    say(told(SIZES[size]))
    say_table(("measure", "published", "ours", "ratio", "at most"), rows_of(result))
    say(f"Of a step: {shares(result)}.")


if __name__ == "__main__":
    main()
