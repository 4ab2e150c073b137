"""Names that clients send: each becomes a path inside its folder, or the request ends."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...core.errors import FileAccessError
from ...core.folders import confined
from .answers import Refused

LONGEST_NAME, LONGEST_PATH = 255, 1024
# Windows opens devices under these names, whatever the folder and the ending.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def inside(folder: Path, *names: str) -> Path:
    """folder / names, links resolved. Raises Refused: 400 for what no file should be called, 403 for what leaves the folder.

    One rule on every system, so that what was saved here can be opened there. Empty names mean the folder itself.
    """
    for name in names:
        _require_plain(name)
    try:
        return confined(folder, "/".join(name for name in names if name))
    except FileAccessError as error:
        raise Refused("The name leaves its folder.", 403, "forbidden") from error
    except (OSError, RuntimeError) as error:
        # Links that lead in a circle, or a path too long for this system.
        raise Refused("The name leads to no file.") from error


def _require_plain(name: str) -> None:
    if _CONTROL.search(name) or "\\" in name or _too_long(name):
        raise Refused("The name has characters that a file name cannot have, or is too long.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused("The name leaves its folder.", 403, "forbidden")
    if any(_DRIVE.match(part) or _DEVICE.fullmatch(part.strip()) for part in path.parts):
        raise Refused("The name is one of a drive or a device.")


def _too_long(name: str) -> bool:
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Refused("The name holds half a character.") from error
    return size > LONGEST_PATH or any(len(part.encode("utf-8")) > LONGEST_NAME for part in name.split("/"))
