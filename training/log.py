"""log.csv: a line per step, one column per loss; safe to append to after a kill."""

from __future__ import annotations

import csv
from pathlib import Path

from ..core.file_names import written_whole


class StepLog:
    """Appends rows; columns may be added by a later phase, so the file is rewritten when they change."""

    def __init__(self, path: Path, keep_below: int) -> None:
        """keep_below: rows of steps after this one are dropped, since a resumed run writes them again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._rows: list[dict[str, object]] = []
        self._columns: list[str] = []
        if path.exists() and keep_below:
            with path.open(newline="") as file:
                self._rows = [dict(row) for row in csv.DictReader(file) if int(row["step"]) <= keep_below]
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()

    def write(self, row: dict[str, object]) -> None:
        """Append a row; a new column rewrites the file with it."""
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self) -> None:
        with written_whole(self._path) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
