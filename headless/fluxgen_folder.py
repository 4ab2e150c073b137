"""The folder of a FluxGen run. Killed at any moment it can be gone on with: every file in it is whole.

settings.json     what the run was begun with
pool/KEY.png      what was drawn, and pool.jsonl with a line for each
scores.jsonl      a line for each picture of the pool
000000.tar ...    the pairs, see core/pair_shards.py, and index.jsonl with a line for each
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import BadValueError, FileAccessError
from ..core.pair_shards import key_of
from .manifest import writing_to
from .results import STAGING_PREFIX, make_folder, remove_left_staging, staging_folder

SETTINGS, POOL, SCORES = "settings.json", "pool.jsonl", "scores.jsonl"

Entry = dict[str, Any]


def require_free(folder: Path, resume: bool) -> None:
    """Raise FileAccessError when a run cannot begin in that folder, or would go on unasked with one that is there."""
    if folder.is_file():
        raise FileAccessError("is a file.", where=str(folder), way_out="Name a folder.")
    if (folder / SETTINGS).exists():
        if not resume:
            raise FileAccessError(
                "holds a run already.", where=str(folder), way_out="Add --resume to go on with it, or name another folder."
            )
    elif folder.is_dir() and any(not path.name.startswith(STAGING_PREFIX) for path in folder.iterdir()):
        raise FileAccessError("holds other files.", where=str(folder), way_out="Name an empty or a new folder.")


@contextmanager
def run_folder(folder: Path, settings: Mapping[str, Any]) -> Iterator[RunFolder]:
    """The folder for one sitting of a run with these settings. Raises BadValueError when it was begun with others."""
    make_folder(folder)
    _require_equal(folder, settings)
    remove_left_staging(folder)
    with staging_folder(folder) as staging:
        run = RunFolder(folder, staging)
        if not run.has(SETTINGS):
            run.write(folder / SETTINGS, json.dumps(settings, indent=1).encode() + b"\n")
        make_folder(run.pool)
        yield run


def begun_with(folder: Path) -> dict[str, Any]:
    """The settings of the run in that folder, none where there is no run. Raises FileAccessError when they cannot be read."""
    path = folder / SETTINGS
    try:
        return dict(json.loads(path.read_bytes())) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise FileAccessError(f"cannot be read ({error}).", where=str(path), way_out="Name another folder.") from error


def _require_equal(folder: Path, settings: Mapping[str, Any]) -> None:
    before = begun_with(folder)
    if not before:
        return
    changes = [
        f"{name} was {before.get(name)}, now {settings.get(name)}"
        for name in {**before, **settings}
        if before.get(name) != settings.get(name)
    ]
    if changes:
        raise BadValueError(
            f"the run was begun with other settings: {'; '.join(changes)}.",
            where=str(folder),
            way_out="Go on with those it was begun with, or name another folder.",
        )


class RunFolder:
    """Files appear in it whole, from the staging folder inside it."""

    def __init__(self, path: Path, staging: Path) -> None:
        self.path, self._staging = path, staging

    @property
    def pool(self) -> Path:
        return self.path / "pool"

    def picture(self, index: int) -> Path:
        """Of the pool."""
        return self.pool / f"{key_of(index)}.png"

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return (self.path / name).is_file()

    def ledger(self, name: str) -> Ledger:
        """The lines of POOL, SCORES or the pairs' INDEX, as far as it was written."""
        return Ledger(self, name)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Gives a name to write to, which becomes the path after the block."""
        temporary = self._staging / path.name
        with writing_to(path):
            yield temporary
            temporary.replace(path)

    def write(self, path: Path, content: bytes) -> None:
        """A whole file at that path."""
        with self.writing(path) as temporary:
            temporary.write_bytes(content)


class Ledger:
    """JSON lines, one for each finished item, in any order while work goes on and by `index` when it is done."""

    def __init__(self, run: RunFolder, name: str) -> None:
        """Reads the file; a line cut short by a kill is left out, of it as well."""
        self._run, self._path = run, run.path / name
        self._lines: dict[int, str] = {}
        for line in self._text().splitlines():
            try:
                self._lines[json.loads(line)["index"]] = line + "\n"
            except (ValueError, KeyError, TypeError):
                continue
        self.settle()

    def __contains__(self, index: int) -> bool:
        return index in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Entry:
        entry: Entry = json.loads(self._lines[index])
        return entry

    def add(self, *entries: Entry) -> None:
        """More lines, at the end of the file."""
        lines = {entry["index"]: json.dumps(entry) + "\n" for entry in entries}
        with writing_to(self._path), self._path.open("a", encoding="ascii", newline="\n") as file:
            file.write("".join(lines.values()))
        self._lines |= lines

    def settle(self) -> None:
        """Let the file hold every entry once, in order."""
        text = "".join(self._lines[index] for index in sorted(self._lines))
        if text != self._text():
            self._run.write(self._path, text.encode("ascii"))

    def _text(self) -> str:
        return self._path.read_text(encoding="ascii", errors="replace") if self._path.exists() else ""
