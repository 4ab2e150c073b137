"""InstantIR's part of `make gpu-check`: seconds and memory of its three networks, and how far each way to run them is from fp32."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache, partial
from statistics import median

import torch
from gpu_page import Cells, Page, dtype_name, exact_convolutions, forget_peak, gibibytes, peak_memory, synchronize
from kintsugi.core.models.offload import OFFLOADS, Offload
from kintsugi.core.runtime import DTYPES, current_host, rows_per_call
from random_instantir import SIZES, Subject
from torch import Tensor

REPEATS = 3
WHAT = """One guided call of each network, on both rows at once, the middle of {repeats} after a first one, and the peak of the device with
everything loaded. The last columns tell how far the U-Net's noise, steered by residuals, is from that of fp32 with exact
convolutions, in parts of its standard deviation. `merged` keeps the Previewer's adapted weights beside the plain ones."""


def instantir(page: Page, dtype: torch.dtype, size: str) -> None:
    """Every number format, both ways to adapt, and in `dtype` every way to offload."""
    heads = ("InstantIR", "adapter", "Previewer s", "Aggregator s", "U-Net s", "peak GiB", "largest difference", "mean difference")
    page.table("InstantIR", WHAT.format(repeats=REPEATS), heads)
    for known in DTYPES.values():
        for merged in (False, True):
            page.row(dtype_name(known), "merged" if merged else "live", partial(asked, size, known, "none", merged))
    for offload in OFFLOADS[1:]:
        page.row(f"{dtype_name(dtype)}, offload {offload}", "live", partial(asked, size, dtype, offload, False))


def asked(size: str, dtype: torch.dtype, offload: Offload, merged: bool) -> Cells:
    """What a row of the table says."""
    exact = exact_noise(size)
    gc.collect()
    device = current_host().device
    subject = Subject.drawn(SIZES[size](), dtype, offload)
    with rows_per_call(2), subject.running(merged) as (networks, conditions):
        calls = subject.calls(networks, conditions)
        forget_peak(device)
        seconds = [f"{seconds_of(call):.3f}" for call in calls.values()]
        peak = peak_memory(device)
        difference = (calls["U-Net"]().cpu() - exact).abs() / exact.std()
    return *seconds, gibibytes(peak), f"{difference.max():.4f}", f"{difference.mean():.4f}"


@cache
def exact_noise(size: str) -> Tensor:
    """[2, C, h, w] as fp32 has it."""
    subject = Subject.drawn(SIZES[size]())
    with exact_convolutions(), rows_per_call(2), subject.running(merged=False) as (networks, conditions):
        return subject.calls(networks, conditions)["U-Net"]().cpu()


def seconds_of(call: Callable[[], object]) -> float:
    device, seconds = current_host().device, []
    for _ in range(1 + REPEATS):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])
