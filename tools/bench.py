"""`make bench`: times and memory, all on this machine in this run. Compare runs of one machine only.

The commands are measured from cold, each as a process of its own; the rest inside this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kintsugi.headless.console import say, say_table

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "sample"
CROP, CROPS = 96, 16
MEGAPIXEL_SIDE = 1024
REPEATS = 5
# Linux counts the memory of a process in KiB, macOS in bytes.
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024

Row = tuple[str, str]


@dataclass(frozen=True)
class ColdRun:
    """Wall seconds and largest resident memory in bytes of one process from its start to its end."""

    seconds: float
    peak: int


def cold(*arguments: str) -> ColdRun:
    """Python with these arguments, as a process of its own; CalledProcessError when it fails.

    A child's peak starts at the memory of its parent, so this must be called before anything large is imported here.
    """
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return ColdRun(time.perf_counter() - started, usage.ru_maxrss * MEMORY_UNIT)


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def cold_commands(folder: Path) -> list[Row]:
    """What a person waits for at the command line."""
    bare = min(cold("-c", "pass").seconds for _ in range(REPEATS))
    help_page = min(cold("-m", "kintsugi", "--help").seconds for _ in range(REPEATS))
    photo = cold("-m", "kintsugi", "restore", str(SAMPLE / "sample.jpg"), "-o", str(folder / "photo.png"), "--overwrite")
    large = enlarged_four_times(folder)
    return [
        ("kintsugi --help, from cold", f"{help_page:.2f} s ({help_page / bare:.0f} times an empty Python)"),
        ("restore 512 x 512, from cold", f"{photo.seconds:.1f} s, peak {photo.peak / 2**30:.2f} GiB"),
        ("restore 1024 x 1024 to 4096 x 4096 in bf16", f"{large.seconds:.1f} s, peak {large.peak / 2**30:.2f} GiB"),
    ]


def enlarged_four_times(folder: Path) -> ColdRun:
    """The sample at twice its size as the source; made by a child, so that Pillow's memory is not ours."""
    source, result = folder / "large.png", folder / "huge.png"
    cold("-c", f"from PIL import Image; Image.open({str(SAMPLE / 'clean.png')!r}).resize((1024, 1024)).save({str(source)!r})")
    return cold("-m", "kintsugi", "restore", str(source), "-o", str(result), "--scale", "4", "--dtype", "bf16")


def degradation() -> list[Row]:
    """Crops per second of the degradations that training draws."""
    import torch
    from kintsugi.core.degradation.pipeline import degrade

    crops = torch.rand(CROPS, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    rows = []
    for preset, scale in (("mild", 1), ("real-esrgan", 4)):
        seconds = fastest(lambda preset=preset, scale=scale: degrade(crops, preset, scale))  # type: ignore[misc]
        rows.append((f"degrade {CROP} x {CROP} crops, {preset}", f"{CROPS / seconds:.0f} crops/s"))
    return rows


def restoration() -> list[Row]:
    """Seconds per megapixel of result once everything is loaded, and against encoding and decoding alone."""
    import torch
    from kintsugi.core.methods.coding import decode_latent, encode_picture
    from kintsugi.core.methods.one_step import Tiling, restore
    from kintsugi.core.runtime import current_host
    from kintsugi.core.weights.generators import load_generator

    generator = load_generator("gendr")
    picture = torch.rand(1, MEGAPIXEL_SIDE, MEGAPIXEL_SIDE, 3, generator=torch.Generator().manual_seed(0))
    tile = Tiling().tile
    with torch.inference_mode():
        whole = fastest(lambda: restore(generator, picture, 1.0, 0, Tiling(), "wavelet"), repeats=3)
        coding = fastest(lambda: decode_latent(generator.prior, encode_picture(generator.prior, picture, tile), tile), repeats=3)
    megapixels = MEGAPIXEL_SIDE**2 / 1e6
    return [
        (f"restore, warm, {generator.name} on {current_host().device}", f"{whole / megapixels:.2f} s per megapixel"),
        ("the same against the VAE alone", f"{whole / coding:.2f} times"),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = cold_commands(Path(folder))
    say_table(("measure", "result"), [*commands, *degradation(), *restoration()])
    tools = ROOT / "tools"
    methods = (tools / f"bench_{name}.py" for name in ("one_step", "instantir", "fluxir", "batch"))
    for measurement in (ROOT / "tests" / "benchmarks" / "graph.py", *methods):
        say()
        subprocess.run([sys.executable, measurement], check=True)


if __name__ == "__main__":
    main()
