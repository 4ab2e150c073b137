"""`make gpu-check`: what the one-step methods and InstantIR's networks do on this machine's GPU, written to docs/gpu.md.

Every method is built at its published size with random weights, so speed, memory and rounding are those of the real thing, and the
pictures are not. Without a GPU the page says that nothing has been measured; a measured page is never replaced by that.
--device cpu --tiny runs the same code with the embedded weights.
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gpu_check_instantir import instantir
from gpu_page import Cells, Page, dtype_name, exact_convolutions, forget_peak, gibibytes, held_memory, peak_memory, synchronize
from kintsugi.core.methods import gendr, instarevive, tsd_sr
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.models.codec import LatentCodec
from kintsugi.core.models.mini import build_pixart, build_sd3_transformer, build_unet, build_vae
from kintsugi.core.models.offload import OFFLOADS, Offload, place
from kintsugi.core.models.prior import Prior
from kintsugi.core.models.prompt import PromptEmbedding
from kintsugi.core.runtime import DTYPES, LocalHost, best_device, best_dtype, current_host, using_host
from kintsugi.core.weights.configs import shipped_config
from kintsugi.core.weights.generators import READERS, load_generator
from kintsugi.core.weights.options import LoadOptions
from kintsugi.headless.console import complain, say
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gpu.md"
SAMPLE = ROOT / "docs" / "sample" / "sample.jpg"
SIDES, TINY_SIDES = (512, 1024), (64, 128)
REPEATS = 3
# Rows of a network call: one alone, and what a host with a GPU uses.
ROWS = (1, LocalHost(torch.device("cuda")).micro_batch)
MEASURED = "<!-- measured -->"

NO_GPU = """# On a GPU

**No GPU was available so far: nothing on this page has been measured.** The code asks torch for the device and names none itself;
all of it has run on a CPU only. `make gpu-check` on a machine with a GPU replaces this page by what it measures there, for every one-step
method and InstantIR's networks at their published sizes with random weights:

- how far fp16 and bf16 are from fp32,
- memory and seconds of each way to offload,
- that running out of memory ends in smaller tiles and a picture of the same size,
- seconds and memory at 512 and 1024 pixels.
"""
INTRODUCTION = """# On a GPU

{mark}
Written by `make gpu-check` on {date}: {machine}; {sizes}.

Random weights show speed, memory and rounding, not how well a method restores. Differences and spread are in grey levels of 255;
spread is the standard deviation of the fp32 picture, against which the differences are to be judged.
"""


@dataclass(frozen=True)
class FullSize:
    """A method with random weights, float32 on the CPU, and what its generator needs beside it."""

    method: nn.Module
    vae: nn.Module
    family: str
    samples_posterior: bool = False


def full_size_gendr() -> FullSize:
    unet = build_unet(shipped_config("gendr-unet"))
    method = gendr.GenDR(unet, torch.randn(1, 77, unet.config.cross_attention_dim), gendr.OneStepConstants())
    return FullSize(method, build_vae(shipped_config("vae-kl-f8-d16")), "sd21-vae16")


def full_size_tsd_sr() -> FullSize:
    transformer = build_sd3_transformer(shipped_config("sd3-transformer"))
    tokens = torch.randn(1, 333, transformer.config.joint_attention_dim)
    prompt = PromptEmbedding(tokens, torch.randn(1, transformer.config.pooled_projection_dim))
    method = tsd_sr.TsdSr(transformer, prompt, tsd_sr.OneStepConstants())
    return FullSize(method, build_vae(shipped_config("sd3-vae")), "sd3", samples_posterior=True)


def full_size_instarevive() -> FullSize:
    transformer = build_pixart(shipped_config("pixart-transformer"))
    prompt = PromptEmbedding(torch.randn(1, 300, transformer.config.caption_channels))
    method = instarevive.InstaRevive(transformer, prompt, instarevive.OneStepConstants())
    return FullSize(method, build_vae(shipped_config("sd-vae-ft-ema")), "pixart-alpha")


FULL_SIZE: dict[str, Callable[[], FullSize]] = {
    "gendr": full_size_gendr,
    "tsd-sr": full_size_tsd_sr,
    "instarevive": full_size_instarevive,
}


@dataclass(frozen=True)
class Bench:
    """Where to measure, and what: methods at their published size, or the embedded ones."""

    device: torch.device
    tiny: bool

    @property
    def sides(self) -> tuple[int, int]:
        """Sides in pixels of the small picture, which is one tile, and of the large one."""
        return TINY_SIDES if self.tiny else SIDES

    def generator(self, name: str, dtype: torch.dtype, offload: Offload = "none") -> Generator:
        gc.collect()
        if self.tiny:
            return load_generator(name, "embedded", dtype_name(dtype), LoadOptions(offload=offload))
        size = random_weights(name)
        method = deepcopy(size.method)
        method.fold()
        codec = LatentCodec(place(deepcopy(size.vae), dtype, offload))
        return Generator(name, place(method, dtype, offload), Prior(size.family, codec), samples_posterior=size.samples_posterior)

    def picture(self, side: int) -> Tensor:
        """The sample photo [1, side, side, 3] in 0..1."""
        with Image.open(SAMPLE) as photo:
            resized = photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255)[None]

    def restored(self, generator: Generator, side: int, tile: int) -> Tensor:
        """That picture restored [1, side, side, 3] on the CPU, its colours as the networks gave them."""
        return restore(generator, self.picture(side), 1.0, 0, Tiling(tile)).cpu()


@cache
def random_weights(name: str) -> FullSize:
    torch.manual_seed(0)
    return FULL_SIZE[name]()


@dataclass(frozen=True)
class Measured:
    """Seconds of the middle run; peak of the device memory in bytes, None where it is not counted; the tile that fitted."""

    seconds: float
    peak: int | None
    tile: int


def measured(bench: Bench, generator: Generator, side: int, tile: int) -> Measured:
    """Restore a picture of that side a first time, and some times more with the clock running."""
    seconds = []
    with tiles_tried(tile) as tried:
        for _ in range(1 + REPEATS):
            forget_peak(bench.device)
            started = time.perf_counter()
            bench.restored(generator, side, tile)
            synchronize(bench.device)
            seconds.append(time.perf_counter() - started)
    return Measured(median(seconds[1:]), peak_memory(bench.device), tried[-1])


def offloading(bench: Bench, page: Page, dtype: torch.dtype) -> None:
    what = f"A picture of {bench.sides[0]} pixels in {dtype_name(dtype)}. GiB of the device: what it holds between calls, and the peak."
    page.table("Offloading", what, ("method", "offload", "held GiB", "peak GiB", "seconds"))
    for name, offload in product(READERS, OFFLOADS):
        page.row(name, offload, partial(offloaded, bench, name, dtype, offload))


def offloaded(bench: Bench, name: str, dtype: torch.dtype, offload: Offload) -> Cells:
    generator = bench.generator(name, dtype, offload)
    held, found = held_memory(bench.device), measured(bench, generator, bench.sides[0], bench.sides[0])
    return gibibytes(held), gibibytes(found.peak), f"{found.seconds:.3f}"


def speed(bench: Bench, page: Page, dtype: torch.dtype) -> None:
    what = (
        f"In {dtype_name(dtype)}, nothing offloaded; the middle of {REPEATS} runs after a first one. A network call always has `rows`\n"
        "rows, so that results do not depend on how pictures are grouped: a single tile is computed that many times."
    )
    page.table("Speed and memory", what, ("method", "picture", "tile", "rows", "seconds", "peak GiB"))
    small, large = bench.sides
    for name in READERS:
        generator = bench.generator(name, dtype)
        for (side, tile), rows in product(((small, small), (large, small), (large, large)), ROWS):
            page.row(name, f"{side} x {side}", partial(timed, bench, generator, side, tile, rows))


def timed(bench: Bench, generator: Generator, side: int, tile: int, rows: int) -> Cells:
    with using_host(LocalHost(bench.device, current_host().dtype, rows)):
        found = measured(bench, generator, side, tile)
    fitted = str(tile) if found.tile == tile else f"{found.tile}, {tile} did not fit"
    return fitted, str(rows), f"{found.seconds:.3f}", gibibytes(found.peak)


def out_of_memory(bench: Bench, page: Page, dtype: torch.dtype) -> None:
    what = "The large picture in one tile, then with only half of what that took above the weights. A CPU is not limited."
    page.table("Out of memory", what, ("method", "dtype", "limit GiB", "tile asked", "tile that fitted", "size kept"))
    for name in READERS:
        page.row(name, dtype_name(dtype), partial(limited, bench, name, dtype))


def limited(bench: Bench, name: str, dtype: torch.dtype) -> Cells:
    generator, side = bench.generator(name, dtype), bench.sides[1]
    held, peak = held_memory(bench.device), measured(bench, generator, side, side).peak
    limit = None if held is None or peak is None else (held + peak) // 2
    with limited_memory(bench.device, limit), tiles_tried(side) as tried:
        restored = bench.restored(generator, side, side)
    kept = restored.shape == (1, side, side, 3)
    return gibibytes(limit), str(side), str(tried[-1]), "yes" if kept else f"no: {list(restored.shape)}"


def number_formats(bench: Bench, page: Page) -> None:
    what = (
        "One tile, against fp32 with exact convolutions; `fp32` itself is torch's default, which may round convolutions to TF32.\n"
        "A seed draws the same noise in every format."
    )
    page.table("Number formats", what, ("method", "dtype", "largest difference", "mean difference", "spread"))
    for name, dtype in product(READERS, DTYPES.values()):
        page.row(name, dtype_name(dtype), partial(differing, bench, name, dtype))


def differing(bench: Bench, name: str, dtype: torch.dtype) -> Cells:
    side, exact = bench.sides[0], exact_levels(bench, name)
    difference = (bench.restored(bench.generator(name, dtype), side, side) * 255 - exact).abs()
    return tuple(f"{float(value):.3f}" for value in (difference.max(), difference.mean(), exact.std()))


@cache
def exact_levels(bench: Bench, name: str) -> Tensor:
    """The small picture restored in fp32, in grey levels of 255."""
    with exact_convolutions():
        return bench.restored(bench.generator(name, torch.float32), bench.sides[0], bench.sides[0]) * 255


@contextmanager
def limited_memory(device: torch.device, limit: int | None) -> Iterator[None]:
    """Inside, torch takes no more than that many bytes of the device; None leaves it alone."""
    if limit is None:
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def tiles_tried(first: int) -> Iterator[list[int]]:
    """The tile sizes that were tried inside, as the log tells them."""
    tried = [first]

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "trying again" in record.msg and isinstance(record.args, tuple):
                tried.append(int(str(record.args[0])))

    log, listener = logging.getLogger("kintsugi"), Listener()
    log.addHandler(listener)
    try:
        yield tried
    finally:
        log.removeHandler(listener)


def described(bench: Bench, page: Page) -> str:
    """The page as text."""
    device = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else str(bench.device)
    introduction = INTRODUCTION.format(
        mark="" if bench.tiny else MEASURED,
        date=time.strftime("%Y-%m-%d"),
        machine=f"{device}, torch {torch.__version__}, Python {platform.python_version()}",
        sizes="the small embedded weights" if bench.tiny else "every method at its published size with random weights",
    )
    return introduction + "\n".join(page.lines) + "\n"


def measure_all(bench: Bench) -> Page:
    dtype, page = best_dtype(bench.device), Page()
    with using_host(LocalHost(bench.device, dtype, 1)), torch.inference_mode():
        for section in (offloading, speed, out_of_memory):
            section(bench, page, dtype)
        number_formats(bench, page)
        instantir(page, dtype, "tiny" if bench.tiny else "published")
    return page


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="A torch device; otherwise the GPU, where there is one.")
    parser.add_argument("--tiny", action="store_true", help="The embedded weights and small pictures; needs --output.")
    parser.add_argument("--output", type=Path, help=f"The page to write; otherwise {PAGE.relative_to(ROOT)}.")
    options = parser.parse_args(arguments)
    if options.tiny and options.output is None:
        parser.error("--tiny needs --output: what it measures does not belong on the page of the published sizes")
    output = options.output or PAGE
    bench = Bench(torch.device(options.device) if options.device else best_device(), options.tiny)
    if bench.device.type == "cpu" and not bench.tiny:
        write_unmeasured(output)
        return 0
    page = measure_all(bench)
    output.write_text(described(bench, page), encoding="utf-8")
    say(f"Wrote {output}.")
    for failure in page.failures:
        complain(f"failed: {failure}")
    return 1 if page.failures else 0


def write_unmeasured(path: Path) -> None:
    if path.is_file() and MEASURED in path.read_text(encoding="utf-8"):
        say(f"No GPU here: {path} keeps what was measured elsewhere.")
        return
    path.write_text(NO_GPU, encoding="utf-8")
    say(f"No GPU here: nothing measured, and {path} says so.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
