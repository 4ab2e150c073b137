"""The benchmark of InstantIR compares two ways that say the same, of which ours computes less."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kintsugi.core.methods.instantir import fast

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """tools/bench_instantir.py, which is a script beside the package, and finds others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module("bench_instantir")


@torch.inference_mode()
def test_both_ways_say_the_same_and_ours_asks_less_of_resampler_and_text(bench: ModuleType) -> None:
    subject = bench.Subject.drawn(bench.SIZES["tiny"]())
    text = subject.prior.denoiser().mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    asked: list[str] = []
    for name, layer in (("resampler", subject.context.perceptor.dcp.image_proj), ("text", text)):
        layer.register_forward_hook(lambda *_, name=name: asked.append(name))
    found = {}
    for way in ("published", "ours"):
        asked.clear()
        *_, latent = getattr(bench, way)(subject, bench.OPTIONS)
        found[way] = latent, asked.count("resampler"), asked.count("text")
    # Two rows, and two calls of the U-Net in each of four steps; we ask with the adapter off and on.
    assert found["published"][1:] == (16, 16) and found["ours"][1:] == (4, 4)
    expected = found["published"][0]
    assert (found["ours"][0] - expected).abs().max() <= bench.AGREEMENT * expected.abs().max()
    *_, hurried = bench.ours(subject, fast(bench.OPTIONS))
    assert not torch.equal(hurried, found["ours"][0])


def test_rows_hold_ratios_against_their_bounds(bench: ModuleType) -> None:
    calls = {"live": 2.0, "Previewer": 1.0, "Aggregator": 2.0, "U-Net": 1.0}
    result = bench.Result(calls, {"published": 4.0, "ours": 3.0, "fast": 2.0}, {"published": 0.0, "ours": 1e-6, "fast": 0.05})
    assert [(row[3], row[4]) for row in bench.rows_of(result)][:3] == [("0.50", "0.95"), ("0.75", "0.98"), ("0.50", "0.75")]
    assert bench.shares(result) == "Previewer 25 %, Aggregator 50 %, U-Net 25 %"
    told = bench.told(bench.SIZES["mid"]())
    assert all(word in told for word in ("64/128/256 channels", "rank 64", "latent 64 x 64", "fp32", "threads"))
