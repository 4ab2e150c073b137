"""`make quality`: what the embedded weights gain on real photos, with the measures and gates that are fixed for them.

Three fixed degradations of five photos from scikit-image's wheel, none of which is ever trained on. Every method runs as its workflow
stores it, at scale 1. Exit code 1 when a gate is missed. --update-readme writes the tables into the README as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from kintsugi.core.degradation.fixed_modes import MODES, Mode, Picture
from quality_measure import (
    AT_SCALE_1,
    INPUT,
    Restorer,
    Row,
    Workflow,
    measure_every_mode,
    to_levels,
    unchanged,
    validation_photos,
    workflow_restorer,
)  # fmt: skip
from quality_methods import HEADINGS as METHOD_HEADINGS
from quality_methods import METHODS, measure_methods, method_cells, missed_method_gates
from rich.console import Console
from rich.table import Table

DEFAULT = "gendr"
DEFAULT_WORKFLOW = Workflow("restore_photo", values=AT_SCALE_1)
SMALLEST_GAIN: dict[Mode, float] = {"bicx4": 0.6, "same": 0.8, "realx4": 0.2}  # dB over the input
LARGEST_GRID = 2.0
BASELINE, RESTORED = "TV + unsharp", "restored"
HEADINGS = ("mode", "picture", "PSNR dB", "dPSNR", "SSIM", "SWD", "grid", "worst grid")
TEXT_COLUMNS = {"mode", "picture", "method", "gate"}
README = Path(__file__).parent.parent / "README.md"
MARKS = ("<!-- quality table -->\n", "<!-- /quality table -->\n")
METHOD_MARKS = ("<!-- methods table -->\n", "<!-- /methods table -->\n")

Cells = list[tuple[str, ...]]


def tv_and_unsharp(picture: Picture) -> Picture:
    """The baseline to beat: Chambolle total variation of weight 0.03, then x + 0.6 (x - Gaussian_1.5(x)), clipped."""
    from scipy.ndimage import gaussian_filter
    from skimage.restoration import denoise_tv_chambolle

    smooth = denoise_tv_chambolle(picture / 255, weight=0.03, channel_axis=-1)
    return to_levels(np.asarray(smooth + 0.6 * (smooth - gaussian_filter(smooth, (1.5, 1.5, 0)))))


def measure_modes(photos: list[Picture], restorer: Restorer) -> list[Row]:
    """Three rows for each mode: the input, the baseline, the restorer."""
    return measure_every_mode(photos, {INPUT: unchanged, BASELINE: tv_and_unsharp, RESTORED: restorer})


def missed_gates(rows: list[Row]) -> list[str]:
    """A sentence for every gate that the default restorer misses."""
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


def cells(rows: list[Row]) -> Cells:
    """The table as text: gains against the input of the same mode."""
    before = {row.mode: row.psnr for row in rows if row.name == INPUT}
    return [
        (row.mode, row.name, f"{row.psnr:.2f}", f"{row.psnr - before[row.mode]:+.2f}", f"{row.ssim:.4f}", *two_digits(row)) for row in rows
    ]


def two_digits(row: Row) -> list[str]:
    return [f"{value:.2f}" for value in (row.swd, row.grid, row.worst_grid)]


def show(rows: list[Row], console: Console) -> None:
    """The default restorer's table."""
    _show("Default restorer, mean over five scikit-image photos", HEADINGS, cells(rows), console)


def _show(title: str, headings: Sequence[str], lines: Cells, console: Console) -> None:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in TEXT_COLUMNS else "right")
    for texts in lines:
        table.add_row(*texts, end_section=RESTORED in texts)
    console.print(table)


def as_markdown(rows: list[Row]) -> str:
    """The default restorer's table for the README."""
    return markdown_table(HEADINGS, cells(rows))


def markdown_table(headings: Sequence[str], lines: Cells) -> str:
    rule = ["---" if heading in TEXT_COLUMNS else "--:" for heading in headings]
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, rule, *lines])


def with_table(text: str, table: str, marks: tuple[str, str] = MARKS) -> str:
    """The README's text with this table between those marks; ValueError when it has not both."""
    begin, end = (text.index(mark) for mark in marks)
    return text[: begin + len(marks[0])] + table + text[end:]


def measure_default(photos: list[Picture]) -> list[Row]:
    """measure_modes() of what `kintsugi restore` does at scale 1 with the embedded weights."""
    with workflow_restorer(DEFAULT_WORKFLOW) as restore:
        return measure_modes(photos, restore)


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    photos, names = validation_photos(), [options.method] if options.method else [DEFAULT, *METHODS]
    others = [name for name in names if name != DEFAULT]
    default_rows = measure_default(photos) if DEFAULT in names else []
    method_rows = measure_methods(photos, others) if others else []
    missed = missed_gates(default_rows) if default_rows else []
    missed += missed_method_gates(method_rows) if method_rows else []
    report(default_rows, method_rows, missed, options.json)
    if options.update_readme:
        text = with_table(README.read_text(encoding="utf-8"), as_markdown(default_rows))
        README.write_text(with_table(text, markdown_table(METHOD_HEADINGS, method_cells(method_rows)), METHOD_MARKS), encoding="utf-8")
    return 1 if missed else 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=[DEFAULT, *METHODS], help="Measure this one only.")
    parser.add_argument("--json", action="store_true", help="Print the rows and the missed gates as JSON.")
    parser.add_argument("--update-readme", action="store_true", help="Write the tables into README.md.")
    options = parser.parse_args(arguments)
    if options.update_readme and options.method:
        parser.error("--update-readme writes all tables: leave --method out.")
    return options


def report(default_rows: list[Row], method_rows: list[Row], missed: list[str], as_json: bool) -> None:
    """Print tables and missed gates, or all of it as JSON."""
    console = Console(width=100)
    if as_json:
        rows = {"default": [asdict(row) for row in default_rows], "methods": [asdict(row) for row in method_rows]}
        console.print_json(json.dumps({**rows, "missed": missed}))
        return
    if default_rows:
        show(default_rows, console)
    if method_rows:
        _show("Other methods in the mode `same`", METHOD_HEADINGS, method_cells(method_rows), console)
    for gate in missed:
        console.print(f"missed: {gate}", soft_wrap=True)
    if not missed:
        console.print("All gates met.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
