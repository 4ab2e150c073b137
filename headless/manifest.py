"""The manifest of a batch: one JSON line per picture, enough to tell later what is done and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import FileAccessError
from ..core.file_names import written_whole

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Record:
    """One picture. Paths are below the input and output folder, with `/` between.

    workflow_sha256: of the prompt with its parameters but without the picture's name. settings: what else decides bits.
    """

    input: str
    input_sha256: str
    workflow_sha256: str
    settings: dict[str, Any]
    seeds: dict[str, int]
    parameters: dict[str, Any]
    outputs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    error: str | None = None

    def is_done(self, folder: Path) -> bool:
        """True when it succeeded and its results are still there."""
        return self.error is None and bool(self.outputs) and all((folder / name).is_file() for name in self.outputs)


def read_manifest(folder: Path) -> dict[str, Record]:
    """The last record of each input. A line cut short by a kill is left out; FileAccessError when the file is unreadable."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise FileAccessError(f"cannot be read: {error}", where=str(folder / NAME), way_out="Move it away to begin anew.") from error
    records = (_parsed(line) for line in lines)
    return {record.input: record for record in records if record is not None}


def _parsed(line: str) -> Record | None:
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        return None


def write_manifest(folder: Path, records: list[Record]) -> None:
    """Replace the manifest by these records."""
    with writing_to(folder / NAME), written_whole(folder / NAME) as temporary:
        temporary.write_text("".join(_line(record) for record in records), encoding="utf-8")


def append_record(folder: Path, record: Record) -> None:
    """One more line."""
    with writing_to(folder / NAME), (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(_line(record))


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """What the system refuses inside the block, told as a FileAccessError."""
    try:
        yield
    except OSError as error:
        raise FileAccessError(
            f"cannot be written ({error.strerror}).", where=str(path), way_out="Check the free space and the permissions."
        ) from error


def _line(record: Record) -> str:
    # In ASCII, so that file names which are no valid text survive as well.
    return json.dumps(asdict(record)) + "\n"


def json_sha256(value: Any) -> str:
    """Of the value's canonical JSON: keys sorted, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
