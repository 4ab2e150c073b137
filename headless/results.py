"""From the staging folder to final names: a result appears whole under its name, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path, PurePosixPath

from ..core.errors import FileAccessError
from ..core.imaging.reading import open_image

STAGING_PREFIX = ".kintsugi-"


@contextmanager
def staging_folder(beside: Path) -> Iterator[Path]:
    """A hidden folder in `beside` (so that a move is a rename), gone after the block whatever happened in it."""
    make_folder(beside)
    try:
        folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=beside))
    except OSError as error:
        raise _unwritable(beside, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """The folder and those above it; FileAccessError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> FileAccessError:
    return FileAccessError(f"cannot be written ({error.strerror}).", where=str(path), way_out="Choose a folder that can be written.")


def remove_left_staging(folder: Path) -> None:
    """Staging folders that killed runs left in `folder`."""
    for left in folder.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """FileAccessError naming the first of the paths that exists, unless they may be overwritten."""
    for path in paths:
        if path.is_dir():
            raise FileAccessError("is a folder.", where=str(path), way_out="Give the name of a file.")
        if path.exists() and not overwrite:
            raise FileAccessError("exists already.", where=str(path), way_out="Choose another name or add --overwrite.")


def final_names(endings: Iterable[str], folder: Path, stem: str) -> list[Path]:
    """Names for what one run wrote: `stem.png`, then `stem_2.png` and so on, each with the ending it was written with."""
    return [folder / _with_ending(stem if number == 1 else f"{stem}_{number}", ending) for number, ending in enumerate(endings, 1)]


def _with_ending(stem: str, suffix: str) -> str:
    """A stem that is a whole file name of that ending already (see output_stems) stays as it is."""
    return stem if stem.lower().endswith(suffix.lower()) else stem + suffix


def move_all(written: list[Path], final: list[Path], overwrite: bool) -> None:
    """Rename each to its final name; nothing is moved when one of the names is taken."""
    refuse_existing(final, overwrite)
    for source, target in zip(written, final, strict=True):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        except OSError as error:
            raise _unwritable(target, error) from error


def output_stems(names: Sequence[str]) -> list[str]:
    """Stems for the results of these files (paths below one folder, `/` between), in their order, no two equal.

    `a.jpg` gives `a`; beside an `a.png` both keep their whole name, `a.jpg` and `a.png`, so that neither hides the other.
    """
    plain = [name[: len(name) - len(PurePosixPath(name).suffix)] for name in names]
    counts = Counter(stem.casefold() for stem in plain)
    taken = {stem for stem, uses in counts.items() if uses == 1}
    stems = []
    for name, stem in zip(names, plain, strict=True):
        if counts[stem.casefold()] > 1:
            numbered = (f"{name}_{number}" for number in count(2))
            stem = next(free for free in chain([name], numbered) if free.casefold() not in taken)
            taken.add(stem.casefold())
        stems.append(stem)
    return stems


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's header."""
    with open_image(path) as image:
        return image.size
