"""Names of result files: a prefix with placeholders, numbered on from what the folder already holds; written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from .errors import FileAccessError
from .folders import confined

BATCH_NUMBER = "%batch_num%"
_DATE_PLACEHOLDER = re.compile(r"%date:([^%]+)%")
_DATE_PART = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")


def next_file_name(folder: Path, prefix: str, width: int, height: int, suffix: str = ".png") -> Path:
    """`folder/[sub/]<prefix>_<5-digit counter>_<suffix>`, not yet taken. See `next_file_names`."""
    return next_file_names(folder, prefix, width, height, 1, suffix)[0]


def next_file_names(folder: Path, prefix: str, width: int, height: int, count: int, suffix: str = ".png") -> list[Path]:
    """Names for `count` pictures of width x height pixels, as ComfyUI's SaveImage numbers them.

    The counter is 1 + the highest one that any file of this prefix has, whatever its suffix. A prefix may name
    subfolders (made here) and hold %width% %height% %year% %month% %day% %hour% %minute% %second%, %date:FORMAT%
    (of yyyy yy MM M dd d hh h mm m ss s) and %batch_num%, the picture's place among the `count`. Unlike ComfyUI's,
    a counter beside %batch_num% goes on as well, so that a second run does not overwrite the first.
    Raises FileAccessError when the prefix leaves the folder or names nothing in it, or the folder cannot be made or read.
    """
    place = confined(folder, fill_placeholders(prefix, width, height, datetime.now()))
    if place == folder.resolve():
        raise FileAccessError(f"{prefix!r} is no beginning of a file name.", where=str(folder), way_out="Give one, such as `photo`.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        first = 1 + _highest_counter(place)
    except OSError as error:
        raise FileAccessError(str(error), where=str(place.parent), way_out="Choose a folder that can be written.") from error
    return [place.with_name(f"{place.name.replace(BATCH_NUMBER, str(index))}_{first + index:05d}_{suffix}") for index in range(count)]


def fill_placeholders(prefix: str, width: int, height: int, now: datetime) -> str:
    """The prefix with its size and date parts written out; %batch_num% and unknown parts stay."""
    parts = {
        "%width%": str(width),
        "%height%": str(height),
        "%year%": f"{now.year}",
        "%month%": f"{now.month:02d}",
        "%day%": f"{now.day:02d}",
        "%hour%": f"{now.hour:02d}",
        "%minute%": f"{now.minute:02d}",
        "%second%": f"{now.second:02d}",
    }
    for part, value in parts.items():
        prefix = prefix.replace(part, value)
    return _DATE_PLACEHOLDER.sub(lambda found: format_date(found.group(1), now), prefix)


def format_date(pattern: str, now: datetime) -> str:
    """`yyyy-MM-dd_hhmmss` and the like; a doubled letter is padded to two digits."""
    numbers = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}

    def write(found: re.Match[str]) -> str:
        part = found.group(0)
        if part.startswith("y"):
            return f"{now.year:04d}"[-len(part) :]
        return f"{numbers[part[0]]:0{len(part)}d}"

    return _DATE_PART.sub(write, pattern)


def _highest_counter(place: Path) -> int:
    """Of the files beside `place` that are called `<its name>_<digits>` and then `_` or nothing; 0 without any."""
    stem = r"\d+".join(re.escape(os.path.normcase(part)) for part in place.name.split(BATCH_NUMBER))
    numbered = re.compile(stem + r"_(\d+)(?:_.*)?")
    matches = (numbered.fullmatch(os.path.normcase(name)) for name in (path.name for path in place.parent.iterdir()))
    return max((int(match.group(1)) for match in matches if match), default=0)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name in the folder of `path`; after the block it is renamed to `path`, or removed on any failure.

    Raises FileAccessError when the folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
    except OSError as error:
        raise FileAccessError(str(error), where=str(path), way_out="Choose a folder that can be written.") from error
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's permission mask, which mkstemp and safetensors ignore: results should be as readable as any other file."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
