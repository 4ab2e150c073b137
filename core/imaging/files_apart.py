"""Photos read before a graph runs and written after it, so that the files of one picture overlap with the networks of another.

Outside using_files_apart() reading and writing happen where the nodes ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from .photo import Photo
from .reading import read_photo


class FilesApart:
    """What one run of a graph needs of photo files, kept in memory in between."""

    def __init__(self) -> None:
        self._photos: dict[Path, Photo] = {}
        self._writes: list[Callable[[], None]] = []

    def read(self, path: Path) -> None:
        """Before the run: the photo of this very path. Raises what read_photo() does."""
        self._photos[path] = read_photo(path)

    def taken(self, path: Path) -> Photo | None:
        """The photo that was read, once."""
        return self._photos.pop(path, None)

    def put_off(self, path: Path, write: Callable[[], None]) -> None:
        """Keep the place of a file that write() makes."""
        path.touch(exist_ok=False)
        self._writes.append(partial(_replace, path, write))

    def write(self) -> None:
        """After the run: every file that it put off, in its order. Raises what the writing does."""
        while self._writes:
            self._writes.pop(0)()


def _replace(path: Path, write: Callable[[], None]) -> None:
    path.unlink()
    write()


_apart: ContextVar[FilesApart | None] = ContextVar("kintsugi_files_apart", default=None)


@contextmanager
def using_files_apart() -> Iterator[FilesApart]:
    """Inside the block, and its thread, read_for_graph() and write_for_graph() use what this gives."""
    apart = FilesApart()
    token = _apart.set(apart)
    try:
        yield apart
    finally:
        _apart.reset(token)


def read_for_graph(path: Path) -> Photo:
    """read_photo(), or what it gave before the run."""
    apart = _apart.get()
    return (apart.taken(path) if apart else None) or read_photo(path)


def write_for_graph(path: Path, write: Callable[[], None]) -> None:
    """write(), which makes the file of that path: now, or after the run."""
    apart = _apart.get()
    if apart is None:
        write()
    else:
        apart.put_off(path, write)
