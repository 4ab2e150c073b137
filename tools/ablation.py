"""`make ablation CELL=tsd-sr/full`: train small students with one part of a paper left out, measure them, and write docs/ablations.md.

Every cell is trained from three seeds with the same budget of steps; the photos and measures are those of `make quality`. A result
that exists is kept; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from ablation_cells import SEEDS, STUDIES, Study
from ablation_page import page
from kintsugi.core.degradation.fixed_modes import Picture
from kintsugi.core.weights.files import configuration_in
from kintsugi.core.weights.inspection import describe_weights
from kintsugi.training.card import code_version, machine
from kintsugi.training.recipe import load_recipe
from kintsugi.training.run import train
from quality_measure import INPUT, OwnStudent, Row, measure_every_mode, unchanged, validation_photos, workflow_restorer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "ablations"
RUNS = ROOT / "runs" / "ablations"
STUDENT = "student"
LOG_ROWS = 32


def cell_names() -> list[str]:
    """`study/cell`, in the order of the page."""
    return [f"{name}/{cell}" for name, study in STUDIES.items() for cell in study.cells]


def run_cell(study: Study, overrides: dict[str, Any], run: Path, photos: list[Picture]) -> dict[str, Any]:
    """Train one cell from one seed in the folder `run`, going on where it was stopped, and measure what it exported."""
    texts = {key: json.dumps(value) for key, value in overrides.items()}
    exported = train(study.recipe, run, texts, resume=(run / "checkpoints").exists())
    recipe = load_recipe(study.recipe, texts)
    log = condensed(run / "log.csv", LOG_ROWS)
    return {
        "recipe": study.recipe,
        "overrides": overrides,
        "steps": recipe.steps,
        "pictures": recipe.steps * recipe.batch * recipe.accumulate,
        "minutes": round(log["seconds"][-1] / 60, 1),
        "machine": machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 1),
        "code": code_version(),
        "rows": [asdict(row) for row in measured(study, exported, photos)],
        "log": log,
    }


def measured(study: Study, exported: Sequence[Path], photos: list[Picture]) -> list[Row]:
    """The input and the exported student in all modes."""
    (file,) = (path for path in exported if path.suffix == ".safetensors" and _kind(path) == study.method)
    workflow = replace(study.workflow, student=OwnStudent(study.loader, study.method, file))
    with workflow_restorer(workflow) as restore:
        return measure_every_mode(photos, {INPUT: unchanged, STUDENT: restore})


def _kind(path: Path) -> str:
    return str(configuration_in(describe_weights(path).metadata, str(path)).get("kind"))


def condensed(log: Path, rows: int) -> dict[str, list[float | None]]:
    """The columns of a run's log.csv as means over at most so many stretches of it; steps and seconds are those of their ends, and a
    loss that a stretch never had is null."""
    with log.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    count = min(rows, len(lines))
    stretches = [lines[len(lines) * part // count : len(lines) * (part + 1) // count] for part in range(count)]
    return {name: [_condensed(name, [line[name] for line in stretch]) for stretch in stretches] for name in lines[0]}


def _condensed(name: str, texts: list[str]) -> float | None:
    values = [float(text) for text in texts if text]
    if not values:
        return None
    return values[-1] if name in ("step", "seconds") else float(f"{mean(values):.5g}")


def wanted(names: Sequence[str], seeds: Sequence[int], results: Path, again: bool) -> Iterator[tuple[str, int, Path]]:
    """(cell, seed, file) of the results to make."""
    for name in names:
        for seed in seeds:
            path = results / f"{name}-seed{seed}.json"
            if again or not path.exists():
                yield name, seed, path


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    photos = validation_photos()
    for name, seed, path in wanted(options.cells or cell_names(), options.seeds, options.results, options.again):
        method, _, cell = name.partition("/")
        run = options.runs / f"{name}-seed{seed}"
        if options.again:
            shutil.rmtree(run, ignore_errors=True)
        overrides = {**STUDIES[method].overrides(cell, seed), **dict(map(_assignment, options.set))}
        result = {"cell": name, "seed": seed, **run_cell(STUDIES[method], overrides, run, photos)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.results.glob("*/*.json"))]
    options.results.with_suffix(".md").write_text(page(STUDIES, found), encoding="utf-8")
    return 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"Which ones; all without any. Known: {', '.join(cell_names())}.")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="Train from these seeds.")
    parser.add_argument("--again", action="store_true", help="Make results anew that exist.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Folder of the results; the page is written beside it.")
    parser.add_argument("--runs", type=Path, default=RUNS, help="Folder of the training runs.")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="Change the recipe, to try a cell elsewhere.")
    options = parser.parse_args(arguments)
    for name in options.cells:
        if name not in cell_names():
            parser.error(f"there is no cell {name!r}; known: {', '.join(cell_names())}.")
    if options.set and options.results == RESULTS:
        parser.error("a changed recipe is not the cell's: give another folder with --results.")
    return options


def _assignment(text: str) -> tuple[str, Any]:
    import yaml

    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
