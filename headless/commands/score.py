"""`kintsugi score`: measures of picture files, alone or against references."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.errors import FileAccessError, KintsugiError
from ...core.imaging.reading import read_photo
from ...core.quality import measure, parse_metrics
from ...core.runtime import current_host
from .degrade import pictures_at


def score_files(outputs: list[Path], reference: Path | None = None, metrics: str = "") -> list[dict[str, Any]]:
    """One entry per picture of the files and folders in `outputs`: `file`, `reference`, `scores`.

    reference: one picture for all, or a folder with pictures of the same names (another ending will do). metrics: names
    separated by commas, empty for a sensible few. scores: name -> number; None stands for the infinite PSNR of equal
    pictures, which JSON cannot hold. A picture that fails has `error` instead of `scores`. Raises BadValueError and
    FileAccessError when the request itself is wrong.
    """
    names = parse_metrics(metrics, reference is not None)
    files = files_to_score(outputs, reference)
    progress = current_host().progress(len(files), "Scoring")
    report = []
    for file in files:
        entry: dict[str, Any] = {"file": str(file)}
        try:
            compared = None if reference is None else reference_of(file, reference)
            entry["reference"] = None if compared is None else str(compared)
            values = measure(planes(file), None if compared is None else planes(compared), names)
            entry["scores"] = {name: value if isfinite(value) else None for name, value in values.items()}
        except KintsugiError as error:
            entry["error"] = error_about(file, error)
        report.append(entry)
        progress.advance()
    return report


def files_to_score(outputs: list[Path], reference: Path | None) -> list[Path]:
    files = [file for path in outputs for file in pictures_at(path)]
    if reference is not None and not reference.exists():
        raise FileAccessError("there is no such file or folder.", where=str(reference), way_out="Check the path.")
    return files


def error_about(file: Path, error: KintsugiError) -> str:
    return str(error) if str(file) in str(error) else f"{file}: {error}"


def mean_scores(report: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every measure over the entries that have a finite one."""
    values: dict[str, list[float]] = {}
    for entry in report:
        for name, value in entry.get("scores", {}).items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def reference_of(file: Path, reference: Path) -> Path:
    """The picture to compare a file with: `reference` itself, or the one of that name in it."""
    if not reference.is_dir():
        return reference
    if (reference / file.name).is_file():
        return reference / file.name
    for other in pictures_at(reference):
        if other.stem == file.stem:
            return other
    raise FileAccessError(f"has no picture called {file.stem}.", where=str(reference), way_out="References bear the names of the outputs.")


def planes(path: Path) -> Tensor:
    """[1, 3, H, W] in 0..1."""
    return read_photo(path).picture.movedim(3, 1)
