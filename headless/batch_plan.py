"""What a batch has to do: the pictures below one folder and the names of their results below another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..core.errors import FileAccessError
from ..core.picture_files import PICTURE_SUFFIXES
from .manifest import NAME
from .results import output_stems


@dataclass(frozen=True)
class Batch:
    """The pictures of `source`, by their path below it (`/` between), and where their results go below `target`."""

    source: Path
    target: Path
    stems: dict[str, str]
    not_pictures: int


def plan_batch(source: Path, target: Path, resume: bool, overwrite: bool) -> Batch:
    """Look through `source`, numbered frames in the order of their numbers.

    Raises FileAccessError when the folders cannot be used, or results of another run are there.
    """
    if not source.is_dir():
        raise FileAccessError("no such folder.", where=str(source), way_out="Check the path of the input folder.")
    if source.resolve() == target.resolve():
        raise FileAccessError("is both input and output.", where=str(source), way_out="Choose another output folder.")
    if (target / NAME).exists() and not (resume or overwrite):
        raise FileAccessError(
            "holds results of an earlier batch.", where=str(target), way_out="Add --resume to go on with it, or --overwrite to begin anew."
        )
    files = sorted((path.relative_to(source).as_posix() for path in _files_outside(source, target.resolve())), key=_by_number)
    pictures = [name for name in files if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES]
    return Batch(source, target, dict(zip(pictures, output_stems(pictures), strict=True)), len(files) - len(pictures))


def _files_outside(source: Path, target: Path) -> Iterator[Path]:
    """Files below the source, hidden ones and those of the target left out."""
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != target]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _by_number(name: str) -> tuple[list[tuple[int, str]], str]:
    """So that frame_2 comes before frame_10, and the files of a folder stay together."""
    parts = re.split(r"(\d+)", name.replace("/", "\0"))
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)], name
