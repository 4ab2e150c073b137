"""Where in a folder of tar files every picture's bytes lie: found once by reading the headers, then kept."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...core.errors import FileAccessError, RecipeError
from ...core.file_names import written_whole
from ...core.folders import user_data_directory

log = logging.getLogger("kintsugi")

VERSION = 1
BLOCK = tarfile.BLOCKSIZE
PICTURE, LOW, TEXT, FACTS = range(4)
ROLES = {"hq.png": PICTURE, "png": PICTURE, "jpg": PICTURE, "jpeg": PICTURE, "webp": PICTURE, "lq.png": LOW, "txt": TEXT, "json": FACTS}
NAMED_FAULTS = 5
PIECE = 1 << 20

Spans = dict[str, dict[int, tuple[int, int]]]


@dataclass(frozen=True)
class ShardIndex:
    """Of every example in the order of shards and of their members: shard [N], its place in paths; keys [N]; spans [N, 4, 2], offset
    and length in bytes by role, -1 where it has no such member. faults: what was left out."""

    paths: list[Path]
    shard: NDArray[np.int32]
    keys: NDArray[np.bytes_]
    spans: NDArray[np.int64]
    faults: list[str]


def shard_index(folder: Path) -> ShardIndex:
    """The index of the *.tar below a folder, made at first use and kept in the user's data folder until a shard changes.

    What is damaged is left out and named in the log. Raises RecipeError for a folder without shards or without pictures.
    """
    paths = sorted(folder.rglob("*.tar"))
    if not paths:
        raise RecipeError(f"no shards in {folder}.", where="data.folder", way_out="Give a folder with tar files.")
    place = user_data_directory() / "shards" / f"{_fingerprint(paths)}.npz"
    if not place.exists():
        _write(place, paths)
    with np.load(place) as stored:
        index = ShardIndex(paths, stored["shard"], stored["keys"], stored["spans"], [str(fault) for fault in stored["faults"]])
    for fault in index.faults[:NAMED_FAULTS]:
        log.warning("Left out of the training pictures: %s", fault)
    if len(index.faults) > NAMED_FAULTS:
        log.warning("Left out of the training pictures: %d more of %s.", len(index.faults) - NAMED_FAULTS, folder)
    if not len(index.keys):
        raise RecipeError(f"no pictures in the shards of {folder}.", where="data.folder", way_out="A picture is KEY.png, .jpg or .webp.")
    return index


def _fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256(f"version {VERSION}".encode())
    for path in paths:
        facts = path.stat()
        digest.update(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _write(place: Path, paths: list[Path]) -> None:
    shards: list[int] = []
    keys: list[bytes] = []
    spans: list[list[tuple[int, int]]] = []
    faults: list[str] = []
    for number, path in enumerate(tqdm(paths, desc="Indexing shards", unit="shard")):
        members, damage = _members(path)
        faults += damage
        for key, roles in members.items():
            if PICTURE not in roles:
                faults.append(f"{path}: {key} has no picture.")
                continue
            shards.append(number)
            keys.append(key.encode("utf-8", "surrogateescape"))
            spans.append([roles.get(role, (-1, -1)) for role in (PICTURE, LOW, TEXT, FACTS)])
    place.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(place) as draft:
        np.savez(
            draft,
            shard=np.asarray(shards, np.int32),
            keys=np.asarray(keys, np.bytes_),
            spans=np.asarray(spans, np.int64).reshape(len(keys), 4, 2),
            faults=np.asarray(faults, np.str_),
        )


def _members(path: Path) -> tuple[Spans, list[str]]:
    """Spans of a shard's members by key and role, and what of it is damaged."""
    found: Spans = {}
    faults: list[str] = []
    size = path.stat().st_size
    for member in _headers(path, faults):
        key, _, kind = _split(member.name)
        if member.offset_data + member.size > size:
            faults.append(f"{path}: {member.name} is cut short.")
        elif member.isfile() and kind in ROLES:
            found.setdefault(key, {})[ROLES[kind]] = (member.offset_data, member.size)
    return found, faults


def _split(name: str) -> tuple[str, str, str]:
    """`below/a.hq.png` -> (`below/a`, `.`, `hq.png`): a key ends at the first dot of the member's own name."""
    folder, slash, own = name.rpartition("/")
    key, dot, kind = own.partition(".")
    return f"{folder}{slash}{key}", dot, kind.lower()


def _headers(path: Path, faults: list[str]) -> Iterator[tarfile.TarInfo]:
    """The members whose headers can be read; their contents are passed over. Bytes between members that belong to none are damage."""
    end = 0
    try:
        # Without ignore_zeros a damaged header ends the archive, and nothing tells.
        with tarfile.open(path, "r:", ignore_zeros=True) as archive, path.open("rb") as file:
            while (member := archive.next()) is not None:
                if _holds_anything(file, end, member.offset):
                    faults.append(f"{path}: bytes {end} to {member.offset} are no member.")
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                yield member
            if _holds_anything(file, end, path.stat().st_size):
                faults.append(f"{path}: nothing can be read from byte {end} on.")
    except tarfile.TarError as error:
        faults.append(f"{path}: nothing can be read from byte {end} on ({error}).")
    except OSError as error:
        raise FileAccessError(
            f"cannot be read: {error.strerror}.", where=str(path), way_out="Check the path and its permissions."
        ) from error


def _holds_anything(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether a byte between the two is not zero."""
    file.seek(begin)
    pieces = (file.read(min(PIECE, end - start)) for start in range(begin, end, PIECE))
    return any(piece.strip(b"\0") for piece in pieces)
