"""Files that cannot be read or written as asked: named, with the way out, and nothing half left."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import FileAccessError, KintsugiError, OutOfMemoryError, PictureError
from kintsugi.core.imaging import reading
from kintsugi.core.imaging.photo import BitDepth, FileFormat
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.imaging.writing import write_photo
from PIL import Image
from test_photo_files import COLOUR, RNG, chunk, png, tensor


def write_text(path: Path) -> None:
    path.write_text("no picture")


def write_truncated(path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "PNG" if path.suffix == ".png" else "JPEG")
    path.write_bytes(data.getvalue()[: len(data.getvalue()) // 2])


def write_truncated_deep(path: Path) -> None:
    data = png(RNG.integers(0, 65536, (64, 64, 3), dtype=np.uint16), 2)
    path.write_bytes(data[: len(data) // 2])


def write_bomb(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty.png", lambda path: path.write_bytes(b"")),
        ("text.png", write_text),
        ("cut.png", write_truncated),
        ("cut.jpg", write_truncated),
        ("deep.png", write_truncated_deep),
        ("bomb.png", write_bomb),
        ("float.tif", lambda path: Image.new("F", (3, 3)).save(path)),
    ],
)
def test_what_is_no_sound_picture_is_named_with_a_way_out(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(PictureError) as caught:
        read_photo(tmp_path / name)
    assert name in str(caught.value) and caught.value.way_out


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileAccessError, match=tmp_path.name):
            read_photo(path)


def test_panorama_of_twenty_thousand_pixels_is_read(tmp_path: Path) -> None:
    Image.new("L", (20_000, 40)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").picture.shape == (1, 40, 20_000, 3)
    reading.require_room(tmp_path, (20_000, 4_000))


def test_picture_beyond_memory_is_refused_with_the_size_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "available_ram", lambda: 240_000_000)
    with pytest.raises(OutOfMemoryError, match="10 million pixels would fit"):
        reading.require_room(tmp_path / "a.png", (8_000, 8_000))


def test_existing_file_is_kept_unless_overwriting(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(FileAccessError, match="--overwrite"):
        write_photo(tmp_path / "a.png", tensor(COLOUR[..., :3]), overwrite=False)
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="16383"):
        write_photo(tmp_path / "a.webp", torch.zeros(1, 16_384, 3))
    with pytest.raises(FileAccessError):
        write_photo(tmp_path / "a.png" / "b.png", torch.zeros(1, 1, 3)) if (tmp_path / "a.png").write_bytes(b"") == 0 else None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "picture", "alpha", "file_format", "depth"),
    [
        ("a.jpg", torch.zeros(2, 2, 3), torch.ones(2, 2), None, None),
        ("a.png", torch.full((2, 2, 3), float("nan")), None, None, None),
        ("a.png", torch.zeros(2, 2, 3, 3), None, None, None),
        ("a.png", torch.zeros(2, 2, 3), torch.ones(3, 2), None, None),
        ("a.jpg", torch.zeros(2, 2, 3), None, None, 16),
        ("a.xyz", torch.zeros(2, 2, 3), None, None, None),
    ],
)
def test_what_cannot_be_written_is_said(
    name: str, picture: torch.Tensor, alpha: torch.Tensor | None, file_format: FileFormat | None, depth: BitDepth | None, tmp_path: Path
) -> None:
    with pytest.raises(KintsugiError):
        write_photo(tmp_path / name, picture, alpha, format=file_format, bit_depth=depth)
    assert not list(tmp_path.glob("a.*"))
