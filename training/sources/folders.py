"""Pictures that lie in folders, and pairs of them."""

from __future__ import annotations

import json
from pathlib import Path

from ...core.errors import RecipeError
from ...core.picture_files import PICTURE_SUFFIXES
from .base import Example, decode_text, read_picture

CAPTIONS = "captions.jsonl"
HIGH, LOW = "high", "low"


class FolderPictures:
    """Every picture below a folder, in name order, or the first so many.

    A caption is the text of NAME.txt beside NAME.png, or a line {"file": "below/NAME.png", "caption": "..."} of captions.jsonl in
    the folder.
    """

    def __init__(self, folder: Path, first: int | None = None) -> None:
        self._folder = folder
        self._paths = picture_paths(folder)[:first]
        self._captions = _captions(folder / CAPTIONS)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def example(self, index: int) -> Example:
        path = self._paths[index]
        return Example(read_picture(path), caption=self.caption(index))

    def caption(self, index: int) -> str:
        path = self._paths[index]
        text = path.with_suffix(".txt")
        if text.is_file():
            return decode_text(text.read_bytes(), str(text))
        return self._captions.get(path.relative_to(self._folder).as_posix(), "")


class PairedPictures:
    """Pictures of a folder's subfolder `high`, each with what a restorer is given under the same name, whatever its ending, in `low`.

    Captions lie beside the high ones, as FolderPictures reads them.
    """

    def __init__(self, folder: Path, first: int | None = None) -> None:
        self._high = FolderPictures(folder / HIGH, first)
        self._low = _partners(folder, first)

    def __len__(self) -> int:
        return len(self._high)

    def name(self, index: int) -> str:
        return self._high.name(index)

    def caption(self, index: int) -> str:
        return self._high.caption(index)

    def example(self, index: int) -> Example:
        high = self._high.example(index)
        return Example(high.high_quality, read_picture(self._low[index]), high.caption)


def picture_paths(folder: Path) -> list[Path]:
    """Every picture below the folder, in name order. Raises RecipeError where there is none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise RecipeError(f"no pictures in {folder}.", where="data.folder", way_out="Give a folder with PNG, JPEG, WebP or TIFF files.")
    return paths


def _partners(folder: Path, first: int | None) -> list[Path]:
    """The low pictures in the order of the high ones. Raises RecipeError when one of either has no partner."""
    high, low = ([(path.relative_to(folder / side).with_suffix(""), path) for path in picture_paths(folder / side)] for side in (HIGH, LOW))
    of_high, of_low = dict(high), dict(low)
    alone = [str(path) for name, path in high if name not in of_low] + [str(path) for name, path in low if name not in of_high]
    if alone:
        raise RecipeError(
            f"{len(alone)} pictures have no partner: {', '.join(alone[:3])}.",
            where=str(folder),
            way_out=f"Give a pair the same name in {HIGH} and in {LOW}.",
        )
    return [of_low[name] for name, _ in high][:first]


def _captions(path: Path) -> dict[str, str]:
    """Captions by the picture's path below the folder; none without the file. Raises RecipeError for a line of another form."""
    if not path.is_file():
        return {}
    captions: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
            captions[entry["file"]] = str(entry["caption"])
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"line {number} is no caption ({error!r}).", where=str(path), way_out='Write {"file": "a.png", "caption": "..."} lines.'
            ) from error
    return captions
