"""`kintsugi score --protocol`: a paper's evaluation of a folder, beside what the paper reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from ...core.errors import KintsugiError, MissingPackageError
from ...core.imaging.writing import write_photo
from ...core.protocols import Column, Protocol
from ...core.quality import find_metric, measure_folders, pyiqa_model, size_of
from ...core.runtime import current_host
from .score import error_about, files_to_score, mean_scores, planes, reference_of

Scorer = Callable[[Tensor, Tensor | None], float]

RESULTS, ORIGINALS = "results", "originals"
FEWEST_OF_A_FOLDER = 2


@dataclass
class Evaluation:
    """What of a protocol can be computed here.

    folder: compared pictures are kept below it for measures of whole folders. scorers: by label, of single pictures.
    of_folders: columns that are distances between folders. unavailable: why a label is in neither.
    """

    protocol: Protocol
    reference: Path | None
    folder: Path
    scorers: dict[str, Scorer] = field(default_factory=dict)
    of_folders: list[Column] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def score(self, number: int, file: Path) -> dict[str, Any]:
        """The entry of one picture; a label without a scorer has None."""
        try:
            original = None if self.reference is None else reference_of(file, self.reference)
            picture, against = self.protocol.prepare(planes(file), None if original is None else planes(original))
            scores = {label: scorer(picture, against) for label, scorer in self.scorers.items()}
        except KintsugiError as error:
            return {"file": str(file), "error": error_about(file, error)}
        if self.of_folders and against is not None:
            for name, side in ((RESULTS, picture), (ORIGINALS, against)):
                write_photo(self.folder / name / f"{number:06}.png", side[0].movedim(0, 2))
        return {
            "file": str(file),
            "reference": None if original is None else str(original),
            "compared": size_of(picture),
            "scores": {column.label: scores.get(column.label) for column in self.protocol.columns if not column.of_folders},
        }

    def score_folders(self, pictures: int) -> dict[str, float]:
        """The distances between all that was compared."""
        if pictures < FEWEST_OF_A_FOLDER:
            few = f"not available: it takes {FEWEST_OF_A_FOLDER} pictures or more"
            self.unavailable.update({column.label: few for column in self.of_folders})
            return {}
        pair = self.folder / RESULTS, self.folder / ORIGINALS
        return {column.label: measure_folders(column.metric, *pair) for column in self.of_folders}


def score_by_protocol(outputs: list[Path], reference: Path | None, protocol: Protocol) -> dict[str, Any]:
    """`pictures`: an entry each, `file`, `reference`, `compared` (the size) and `scores` by the paper's column, or `error`.

    `mean`: over the pictures, and the distances between folders. What cannot be computed is None there and has its reason
    in `unavailable`. `measures`: what each column is in core.quality. `published`: the paper's own values. Raises
    FileAccessError when the request itself is wrong.
    """
    files = files_to_score(outputs, reference)
    progress = current_host().progress(len(files), "Scoring")
    entries = []
    with TemporaryDirectory(prefix="kintsugi-score-") as folder:
        evaluation = evaluate_with(protocol, reference, Path(folder))
        for number, file in enumerate(files):
            entries.append(evaluation.score(number, file))
            progress.advance()
        scored = mean_scores(entries) | evaluation.score_folders(sum("scores" in entry for entry in entries))
    return {
        "protocol": protocol.name,
        "source": protocol.source,
        "notes": list(protocol.notes),
        "measures": {column.label: column.metric for column in protocol.columns},
        "pictures": entries,
        "mean": {column.label: scored.get(column.label) for column in protocol.columns},
        "unavailable": evaluation.unavailable,
        "published": [{"data_set": row.data_set, "table": row.table, "values": dict(row.values)} for row in protocol.published],
    }


def evaluate_with(protocol: Protocol, reference: Path | None, folder: Path) -> Evaluation:
    """Every measure is looked up once: some of pyiqa's are large networks."""
    evaluation = Evaluation(protocol, reference, folder)
    for column in protocol.columns:
        reason = _obstacle(column, reference)
        if not reason:
            try:
                _add(evaluation, column)
            except MissingPackageError as error:
                reason = f"install the extra iqa ({error.what.rstrip('.')})"
        if reason:
            evaluation.unavailable[column.label] = f"not available: {reason}"
    return evaluation


def _obstacle(column: Column, reference: Path | None) -> str:
    if not column.metric:
        return column.reason
    if column.needs_reference and reference is None:
        return "it compares with originals, give --reference"
    if column.of_folders and reference is not None and not reference.is_dir():
        return "it compares folders, give --reference a folder"
    return ""


def _add(evaluation: Evaluation, column: Column) -> None:
    if column.of_folders:
        pyiqa_model(column.metric)
        evaluation.of_folders.append(column)
        return
    metric = find_metric(column.metric)
    alone, compared = (lambda picture, _: metric.function(picture)), (lambda picture, reference: metric.function(picture, reference))
    evaluation.scorers[column.label] = compared if metric.needs_reference else alone
