"""InstantIR as it is published against as we run it: seconds of a sampling run and the ratio. Part of `make bench`.

As published: the Previewer's adapter as products beside the weights, and the Resampler and the keys and values of text and image
computed in every call of the U-Net. As we run it: the adapter merged, and all of that computed once per run. Random weights; both
must say the same. They take turns, because other work disturbs a machine, and of every step and call the fastest counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from kintsugi.core.methods.instantir import Options, fast, sample
from kintsugi.core.methods.instantir_assembly import assembled
from kintsugi.core.methods.instantir_networks import Conditions, InstantIR
from kintsugi.core.randomness import draw_noise, picture_generators
from kintsugi.headless.console import say, say_table
from random_instantir import SIZES, Size, Subject
from torch import Tensor

THREADS = 2
ROUNDS = {"tiny": 3, "mid": 5}
OPTIONS = Options(steps=4)
# Both ways say the same; float32 adds in another order.
AGREEMENT = 1e-4


@dataclass(frozen=True)
class Published(InstantIR):
    """The same networks, which compute everything anew in every call. image_tokens: the encoder's, of every row."""

    image_tokens: Tensor

    def _predict(self, z: Tensor, timestep: Tensor, conditions: Conditions, residuals: list[Tensor]) -> Tensor:
        return super()._predict(z, timestep, conditions._replace(image_keys=self.unet.image_keys(self.image_tokens)), residuals)


def ours(subject: Subject, options: Options) -> Iterator[Tensor]:
    """The latent after every step of a run; the first one begins with assembling it."""
    with subject.running(merged=True) as (networks, conditions):
        yield from sampled(subject, networks, conditions, options)


def published(subject: Subject, options: Options) -> Iterator[Tensor]:
    """The same of a run that keeps nothing from one call to the next."""
    text, pooled, size_ids = subject.prompt
    nothing = text[:, 0, :0]
    with assembled(subject.prior, subject.context, subject.previewer(merged=False), subject.aggregator) as networks:
        networks.unet.resident = False
        everything = Published(networks.unet, networks.previewer, networks.aggregator, networks.schedule, subject.image_tokens)
        yield from sampled(subject, everything, Conditions(pooled, size_ids, text, nothing, nothing, nothing, nothing), options)


def sampled(subject: Subject, networks: InstantIR, conditions: Conditions, options: Options) -> Iterator[Tensor]:
    generators, shape = picture_generators(0, 1), subject.degraded.shape[1:]
    for step in sample(networks, subject.degraded, conditions, options, lambda: draw_noise(generators, shape)):
        yield step.z_next


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
    subject = Subject.drawn(SIZES[size]())
    calls: list[dict[str, float]] = []
    steps: dict[str, list[list[float]]] = {"published": [], "ours": [], "fast": []}
    latents: dict[str, Tensor] = {}
    for _ in range(ROUNDS[size]):
        calls.append(calls_of(subject))
        runs = (published(subject, OPTIONS), ours(subject, OPTIONS), ours(subject, fast(OPTIONS)))
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
    with subject.running(merged=False) as running:
        live = seconds_of(subject.calls(*running)["Previewer"])
    with subject.running(merged=True) as running:
        return {"live": live} | {name: seconds_of(call) for name, call in subject.calls(*running).items()}


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
    channels, depths = ("/".join(map(str, size.unet[name])) for name in ("block_out_channels", "transformer_layers_per_block"))
    return (
        f"InstantIR: SDXL's form at three levels of {channels} channels with transformers of {depths} layers, adapter of rank {size.rank}, "
        f"latent {size.side} x {size.side}, guidance {OPTIONS.guidance:g}, fp32, {torch.get_num_threads()} threads, random weights."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="InstantIR as published against as we run it.")
    parser.add_argument("--size", choices=list(ROUNDS), default="mid")
    size = parser.parse_args().size
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        result = measure(size)
    say(told(SIZES[size]()))
    say_table(("measure", "published", "ours", "ratio", "at most"), rows_of(result))
    say(f"Of a step: {shares(result)}.")


if __name__ == "__main__":
    main()
