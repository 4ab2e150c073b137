"""`make quality`: what the default restorer gains on real photos, with the measures and gates that are fixed for it.

Three fixed degradations of five photos from scikit-image's wheel, none of which is ever trained on. Exit code 1 when a gate fails.
--update-readme writes the table into the README as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from kintsugi.core.degradation.fixed_modes import MODES, Mode, Picture, degrade_fixed, validation_crop
from kintsugi.core.quality import measure
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

Restorer = Callable[[Picture], Picture]

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
MEASURES = ("psnr", "ssim", "swd", "grid")
SMALLEST_GAIN: dict[Mode, float] = {"bicx4": 0.45, "same": 0.65, "realx4": 0.15}  # dB over the input
LARGEST_GRID = 2.0
INPUT, BASELINE, RESTORED = "input", "TV + unsharp", "restored"
HEADINGS = ("mode", "picture", "PSNR dB", "dPSNR", "SSIM", "SWD", "grid", "worst grid")
README = Path(__file__).parent.parent / "README.md"
MARKS = ("<!-- quality table -->\n", "<!-- /quality table -->\n")


@dataclass(frozen=True)
class Row:
    """Means over the photos of one kind of picture in one mode; worst_grid is the largest of any photo."""

    mode: Mode
    name: str
    psnr: float
    ssim: float
    swd: float
    grid: float
    worst_grid: float


def default_restorer() -> Restorer:
    """What `kintsugi restore` does at scale 1 with the embedded weights."""
    from kintsugi.core.methods.one_step import Tiling, restore
    from kintsugi.core.weights.generators import load_generator

    generator = load_generator("gendr", "embedded")

    def run(picture: Picture) -> Picture:
        with torch.inference_mode():
            restored = restore(generator, torch.from_numpy(picture.astype(np.float32) / 255)[None], 1.0, 0, Tiling(), "wavelet")
        return to_levels(restored[0].numpy())

    return run


def tv_and_unsharp(picture: Picture) -> Picture:
    """The baseline to beat: Chambolle total variation of weight 0.03, then x + 0.6 (x - Gaussian_1.5(x)), clipped."""
    from scipy.ndimage import gaussian_filter
    from skimage.restoration import denoise_tv_chambolle

    smooth = denoise_tv_chambolle(picture / 255, weight=0.03, channel_axis=-1)
    return to_levels(smooth + 0.6 * (smooth - gaussian_filter(smooth, (1.5, 1.5, 0))))


def to_levels(values: NDArray[np.floating]) -> Picture:
    """0..1 -> 0..255, clipped and rounded."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def validation_photos() -> list[Picture]:
    """The five photos [H, W, 3], cropped, in the order that seeds their noise.

    Values as stored, as skimage.data gives them: converting the one with a wide profile to sRGB would change the measure.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [validation_crop(np.asarray(Image.open(folder / name).convert("RGB"))) for name in PHOTOS]


def measure_modes(photos: list[Picture], restorer: Restorer) -> list[Row]:
    """Three rows for each mode: the input, the baseline, the restorer."""
    makers: dict[str, Restorer] = {INPUT: lambda picture: picture, BASELINE: tv_and_unsharp, RESTORED: restorer}
    rows = []
    for mode in MODES:
        inputs = [degrade_fixed(photo, mode, index) for index, photo in enumerate(photos)]
        for name, make in makers.items():
            scores = [measure(planes(make(degraded)), planes(photo), MEASURES) for degraded, photo in zip(inputs, photos, strict=True)]
            means = {measured: mean(score[measured] for score in scores) for measured in MEASURES}
            rows.append(Row(mode, name, **means, worst_grid=max(score["grid"] for score in scores)))
    return rows


def planes(picture: Picture) -> torch.Tensor:
    """[1, 3, H, W] in 0..1."""
    return torch.from_numpy(picture.astype(np.float32) / 255).movedim(2, 0)[None]


def missed_gates(rows: list[Row]) -> list[str]:
    """A sentence for every gate that the restorer misses."""
    found = {(row.mode, row.name): row for row in rows}
    missed = []
    for mode in MODES:
        before, baseline, restored = (found[mode, name] for name in (INPUT, BASELINE, RESTORED))
        gain = restored.psnr - before.psnr
        if gain < SMALLEST_GAIN[mode]:
            missed.append(f"{mode}: gains {gain:+.2f} dB, at least {SMALLEST_GAIN[mode]:+.2f} dB wanted")
        if restored.psnr <= baseline.psnr:
            missed.append(f"{mode}: {restored.psnr:.2f} dB is not better than {baseline.psnr:.2f} dB of TV + unsharp")
        if restored.ssim < before.ssim:
            missed.append(f"{mode}: SSIM {restored.ssim:.4f} is below the input's {before.ssim:.4f}")
        if restored.worst_grid > LARGEST_GRID:
            missed.append(f"{mode}: grid peak {restored.worst_grid:.2f} in one photo, at most {LARGEST_GRID:.1f} allowed")
    return missed


def cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """The table as text: gains against the input of the same mode."""
    before = {row.mode: row.psnr for row in rows if row.name == INPUT}
    return [
        (row.mode, row.name, f"{row.psnr:.2f}", f"{row.psnr - before[row.mode]:+.2f}", f"{row.ssim:.4f}", *two_digits(row)) for row in rows
    ]


def two_digits(row: Row) -> list[str]:
    return [f"{value:.2f}" for value in (row.swd, row.grid, row.worst_grid)]


def show(rows: list[Row], console: Console) -> None:
    table = Table(title="Mean over five scikit-image photos")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row, texts in zip(rows, cells(rows), strict=True):
        table.add_row(*texts, end_section=row.name == RESTORED)
    console.print(table)


def as_markdown(rows: list[Row]) -> str:
    rule = ["---" if heading in HEADINGS[:2] else "--:" for heading in HEADINGS]
    return "".join(f"| {' | '.join(line)} |\n" for line in [HEADINGS, rule, *cells(rows)])


def with_table(text: str, table: str) -> str:
    """The README's text with this table between its marks; ValueError when it has not both."""
    begin, end = (text.index(mark) for mark in MARKS)
    return text[: begin + len(MARKS[0])] + table + text[end:]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update-readme", action="store_true", help="Write the table into README.md.")
    options = parser.parse_args(arguments)
    console = Console(width=100)
    rows = measure_modes(validation_photos(), default_restorer())
    show(rows, console)
    if options.update_readme:
        README.write_text(with_table(README.read_text(encoding="utf-8"), as_markdown(rows)), encoding="utf-8")
    missed = missed_gates(rows)
    for gate in missed:
        console.print(f"missed: {gate}")
    if not missed:
        console.print("All gates met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
