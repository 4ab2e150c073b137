"""Every embedded method but the default: which workflow measures it, which embedded files it loads, and its gate in the mode `same`.

A sampler of plausible pictures cannot beat the mean estimate in PSNR, so InstantIR's and FluxIR's gates look at texture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kintsugi.core.degradation.fixed_modes import Mode, Picture
from kintsugi.core.weights import embedded
from quality_measure import INPUT, Row, Workflow, measure_mode, unchanged, workflow_restorer

MODE: Mode = "same"
SMALLEST_TEXTURE_GAIN = 0.10  # of the input's SWD
LARGEST_LOSS = 2.5  # dB that a sampler may lose
UNTRAINED = "untrained"
HEADINGS = ("method", "PSNR dB", "dPSNR", "SSIM", "SWD", "dSWD", "worst grid", "gate")


@dataclass(frozen=True)
class Method:
    """workflows: what measures it, by the title of the row. files: the embedded ones that they load.

    missed: what a row misses of the gate, given the input's row; None where it misses nothing.
    """

    workflows: dict[str, Workflow]
    files: tuple[Path, ...]
    missed: Callable[[Row, Row], str | None]


def loses_decibels(before: Row, after: Row) -> str | None:
    """The gate of one-step methods: not below the input's PSNR."""
    gain = after.psnr - before.psnr
    return None if gain >= 0 else f"gains {gain:+.2f} dB, at least +0.00 dB wanted"


def lacks_texture(before: Row, after: Row) -> str | None:
    """The gate of samplers: a texture distance at least a tenth below the input's, at a bounded cost in PSNR."""
    gain, kept = after.psnr - before.psnr, after.swd / before.swd
    faults = []
    if kept > 1 - SMALLEST_TEXTURE_GAIN:
        faults.append(f"SWD is {kept:.0%} of the input's, at most {1 - SMALLEST_TEXTURE_GAIN:.0%} wanted")
    if gain < -LARGEST_LOSS:
        faults.append(f"gains {gain:+.2f} dB, at least {-LARGEST_LOSS:+.2f} dB wanted")
    return "; ".join(faults) or None


METHODS: dict[str, Method] = {
    "tsd-sr": Method({"TSD-SR": Workflow("tsd_sr", at_scale_1=True)}, (embedded.GENERATORS["tsd-sr"],), loses_decibels),
    "instarevive": Method(
        {
            "InstaRevive": Workflow("instarevive_photo", at_scale_1=True),
            "InstaRevive without SwinIR": Workflow("instarevive_photo", at_scale_1=True, bypassed="KintsugiPreRestore"),
        },
        (embedded.GENERATORS["instarevive"], embedded.SWINIR),
        loses_decibels,
    ),
    "instantir": Method({"InstantIR": Workflow("instantir")}, (embedded.PRIORS["sdxl"], *embedded.INSTANTIR.values()), lacks_texture),
    "fluxir": Method({"FluxIR": Workflow("fluxir")}, (embedded.PRIORS["flux"], embedded.FLUXIR), lacks_texture),
}


def measure_methods(photos: list[Picture], names: Iterable[str]) -> list[Row]:
    """The input's row, then those of the named methods, all in the mode `same`."""
    rows = measure_mode(photos, MODE, {INPUT: unchanged})
    for name in names:
        for title, workflow in METHODS[name].workflows.items():
            with workflow_restorer(workflow) as restore:
                rows += measure_mode(photos, MODE, {title: restore})
    return rows


def verdicts(rows: list[Row]) -> dict[str, list[str]]:
    """What each method's row misses of its gate, by the title of the row; nothing is listed for a gate that is met."""
    (before,) = (row for row in rows if row.name == INPUT)
    titled = {title: method for method in METHODS.values() for title in method.workflows}
    return {row.name: list(_faults(titled[row.name], before, row)) for row in rows if row.name != INPUT}


def _faults(method: Method, before: Row, after: Row) -> Iterator[str]:
    untrained = [file.name for file in method.files if file.name.startswith(UNTRAINED)]
    if untrained:
        yield f"{', '.join(untrained)}: not trained yet, so the gate is missed"
    missed = method.missed(before, after)
    if missed:
        yield missed


def method_cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """The table as text: gains and texture distance against the input."""
    (before,) = (row for row in rows if row.name == INPUT)
    faults = verdicts(rows)
    return [
        (
            row.name, f"{row.psnr:.2f}", f"{row.psnr - before.psnr:+.2f}", f"{row.ssim:.4f}", f"{row.swd:.2f}",
            f"{row.swd / before.swd - 1:+.0%}", f"{row.worst_grid:.2f}",
            "" if row is before else "missed" if faults[row.name] else "met",
        )
        for row in rows
    ]  # fmt: skip
