"""Every embedded method but the default: which workflow measures it, and its gate in the mode `same`.

A sampler of plausible pictures cannot beat the mean estimate in PSNR, so InstantIR's and FluxIR's gates look at texture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kintsugi.core.degradation.fixed_modes import Mode, Picture
from quality_measure import AT_SCALE_1, INPUT, Row, Workflow, measure_mode, unchanged, workflow_restorer

MODE: Mode = "same"
SMALLEST_TEXTURE_GAIN = 0.10  # of the input's SWD
LARGEST_LOSS = 2.5  # dB that a sampler may lose
HEADINGS = ("method", "PSNR dB", "dPSNR", "SSIM", "SWD", "dSWD", "worst grid", "gate")


@dataclass(frozen=True)
class Method:
    """workflows: what measures it, by the title of the row. missed: what a row misses of the gate, given the input's row; None where it
    misses nothing. told: titles of rows that are not held to the gate."""

    workflows: dict[str, Workflow]
    missed: Callable[[Row, Row], str | None]
    told: frozenset[str] = frozenset()


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
    "tsd-sr": Method({"TSD-SR": Workflow("tsd_sr", values=AT_SCALE_1)}, loses_decibels),
    "instarevive": Method(
        {
            "InstaRevive": Workflow("instarevive_photo", values=AT_SCALE_1),
            "InstaRevive without SwinIR": Workflow("instarevive_photo", values=AT_SCALE_1, bypassed="KintsugiPreRestore"),
        },
        loses_decibels,
    ),
    # At the 30 steps of the paper the last of them leaves so much noise to take away at once that texture goes with it.
    "instantir": Method(
        {"InstantIR": Workflow("instantir"), "InstantIR, 100 steps": Workflow("instantir", values={"steps": 100})},
        lacks_texture,
        told=frozenset({"InstantIR"}),
    ),
    "fluxir": Method({"FluxIR": Workflow("fluxir")}, lacks_texture),
}


def measure_methods(photos: list[Picture], names: Iterable[str]) -> list[Row]:
    """The input's row, then those of the named methods, all in the mode `same`."""
    rows = measure_mode(photos, MODE, {INPUT: unchanged})
    for name in names:
        for title, workflow in METHODS[name].workflows.items():
            with workflow_restorer(workflow) as restore:
                rows += measure_mode(photos, MODE, {title: restore})
    return rows


def verdicts(rows: list[Row]) -> dict[str, str | None]:
    """What each method's row misses of its gate, by the title of the row; None for a gate that is met."""
    (before,) = (row for row in rows if row.name == INPUT)
    titled = {title: method for method in METHODS.values() for title in method.workflows}
    return {row.name: titled[row.name].missed(before, row) for row in rows if row.name != INPUT}


def missed_method_gates(rows: list[Row]) -> list[str]:
    """A sentence for each gate that is missed."""
    told = frozenset[str]().union(*(method.told for method in METHODS.values()))
    return [f"{title}: {fault}" for title, fault in verdicts(rows).items() if fault and title not in told]


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
