"""Picture files on disk: which names are pictures, what identifies a file's content, and how a frontend asks for one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import FileAccessError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"})


def picture_names(folder: Path) -> list[str]:
    """The pictures directly in a folder, by name; none where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the content; FileAccessError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileAccessError(f"cannot be read: {error.strerror}.", where=str(path), way_out="Check its name and permissions.") from error


def shown(path: Path, folder: Path, kind: str = "output") -> dict[str, str]:
    """A written file as the frontend asks for it; kind: `output`, `temp` or `input`, whose folder `folder` is."""
    subfolder = path.parent.relative_to(folder.resolve()).as_posix()
    return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": kind}
