"""docs/ablations.md from the results: mean and spread of every cell, and whether the direction is the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from ablation_cells import Claim, Study
from kintsugi.core.degradation.fixed_modes import MODES
from quality_measure import INPUT

Result = dict[str, Any]

DIGITS = {"psnr": 2, "ssim": 4, "swd": 2}
HEADINGS = {"psnr": "PSNR dB", "ssim": "SSIM", "swd": "SWD"}
INTRODUCTION = """# Ablations at mini size

Written by `make ablation`. `make ablation CELL=tsd-sr/full` makes one cell, and leaves alone what exists unless `ARGS=--again`.

Every cell is a mini recipe with one part of its paper changed, trained for the same number of steps from the same starts: seed by
seed all cells of a table see the same crops in the same order. What each exported is then measured as `make quality` measures, on five
photos that are never trained on, in three fixed modes: PSNR and SSIM against the original, and SWD, a distance between the textures of
the two pictures (lower is better). Cells show the mean over the seeds, the standard deviation, and in brackets the smallest and the
largest value. A result of every run, with its recipe and a summary of its losses, lies in [ablations/](ablations).

The papers judge by measures that a network learnt from photographs (LPIPS, FID, MUSIQ, MANIQA, CLIPIQA, ...), by models a thousand times
as large, on photographs. SWD is the nearest measure that needs no weights. So agreement below says that an effect is there at this size
and in this measure, and no more; disagreement says nothing against the paper.

"as the paper" means: every seed's SWD has the paper's direction; "the other way": every seed's has the opposite one; "undecided": the
seeds disagree, so that the difference is not larger than their spread. The number is the mean difference of SWD, positive where the
paper's better variant is the better one here.
"""


def page(studies: Mapping[str, Study], results: Sequence[Result]) -> str:
    """The whole page; a study without results says so."""
    return "\n".join([INTRODUCTION, *(_section(name, study, results) for name, study in studies.items())])


def _section(name: str, study: Study, results: Sequence[Result]) -> str:
    found = {cell: [result for result in results if result["cell"] == f"{name}/{cell}"] for cell in study.cells}
    heading = f"## {study.title}\n\n{study.note}\n"
    runs = [result for cell in found.values() for result in cell]
    if not runs:
        return f"{heading}\nNo results yet: `make ablation CELL={name}/{next(iter(study.cells))}` makes the first.\n"
    tables = "\n".join(_table(mode, found) for mode in MODES)
    return f"{heading}\n{tables}\n{_claims(study, found)}\n{_effort(runs)}\n"


def _table(mode: str, found: Mapping[str, list[Result]]) -> str:
    every = [result for runs in found.values() for result in runs]
    lines = [("input", "", *(f"{_row(every[0], mode, INPUT)[measure]:.{digits}f}" for measure, digits in DIGITS.items()))]
    for cell, runs in found.items():
        if runs:
            spreads = (spread([_of_student(run, mode)[measure] for run in runs], digits) for measure, digits in DIGITS.items())
            lines.append((cell, str(len(runs)), *spreads))
    return _markdown((f"mode `{mode}`", "seeds", *HEADINGS.values()), lines)


def spread(values: Sequence[float], digits: int) -> str:
    """`26.51 ± 0.03 (26.48 to 26.54)`: mean, standard deviation of the sample, smallest and largest."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _claims(study: Study, found: Mapping[str, list[Result]]) -> str:
    lines = [
        (f"{claim.better} better than {claim.worse}", claim.numbers, *(verdict(differences(claim, found, mode)) for mode in MODES))
        for claim in study.claims
    ]
    return _markdown((f"{study.source} finds", "by", *(f"here, `{mode}`" for mode in MODES)), lines)


def differences(claim: Claim, found: Mapping[str, list[Result]], mode: str) -> list[float]:
    """How much lower the SWD of the better cell is than that of the worse one, by seed, for the seeds that both have."""
    better, worse = ({run["seed"]: _of_student(run, mode)["swd"] for run in found[cell]} for cell in (claim.better, claim.worse))
    return [worse[seed] - better[seed] for seed in sorted(better.keys() & worse.keys())]


def verdict(found: Sequence[float]) -> str:
    """Whether all seeds have the claim's direction, and by how much."""
    if not found:
        return "not measured"
    if all(difference > 0 for difference in found):
        word = "as the paper"
    else:
        word = "the other way" if all(difference < 0 for difference in found) else "undecided"
    return f"{word} ({mean(found):+.2f})"


def _effort(runs: Sequence[Result]) -> str:
    """Budget, machine, code and minutes, as they were; several where results were made at different times."""
    minutes = [run["minutes"] for run in runs]
    budgets = _different(runs, lambda run: f"{run['steps']} steps, {run['pictures']} crops")
    took = f"{mean(minutes):.1f} minutes a run ({min(minutes):.1f} to {max(minutes):.1f}, {sum(minutes):.0f} in all {len(runs)})"
    return (
        f"Budget: {budgets}. Training took {took} on {_different(runs, lambda run: run['machine'])}. "
        f"Recipe: `{_different(runs, lambda run: run['recipe'])}`. Code: {_different(runs, lambda run: run['code'])}."
    )


def _different(runs: Iterable[Result], told: Callable[[Result], str]) -> str:
    return "; ".join(dict.fromkeys(map(told, runs)))


def _of_student(result: Result, mode: str) -> dict[str, Any]:
    (row,) = (row for row in result["rows"] if row["mode"] == mode and row["name"] != INPUT)
    return row


def _row(result: Result, mode: str, name: str) -> dict[str, Any]:
    (row,) = (row for row in result["rows"] if row["mode"] == mode and row["name"] == name)
    return row


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, ["---"] * len(headings), *lines])
