"""Names of result files, and writing them whole."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from kintsugi.core.errors import FileAccessError
from kintsugi.core.file_names import fill_placeholders, format_date, next_file_name, next_file_names, written_whole

MOMENT = datetime(2026, 3, 4, 15, 6, 7)


def test_first_name_has_counter_one(tmp_path: Path) -> None:
    assert next_file_name(tmp_path, "photo", 8, 8) == tmp_path / "photo_00001_.png"


def test_counter_continues_after_the_highest_present_of_any_suffix(tmp_path: Path) -> None:
    for name in ("photo_00004_.png", "photo_00009_.jpg", "photo_x_00050_.png", "other_00070_.png", "photo_12.png"):
        (tmp_path / name).touch()
    assert [path.name for path in next_file_names(tmp_path, "photo", 8, 8, 2)] == ["photo_00010_.png", "photo_00011_.png"]


def test_batch_number_is_filled_per_picture_and_never_overwrites(tmp_path: Path) -> None:
    names = next_file_names(tmp_path, "p%batch_num%", 8, 8, 2)
    assert [path.name for path in names] == ["p0_00001_.png", "p1_00002_.png"]
    for path in names:
        path.touch()
    assert next_file_name(tmp_path, "p%batch_num%", 8, 8).name == "p0_00003_.png"


def test_prefix_may_name_a_subfolder_which_is_made(tmp_path: Path) -> None:
    path = next_file_name(tmp_path, "sub/%width%x%height%", 12, 34, ".webp")
    assert path == tmp_path / "sub" / "12x34_00001_.webp" and path.parent.is_dir()


def test_date_parts_are_filled() -> None:
    assert fill_placeholders("%year%%month%%day%-%hour%%minute%%second%-%other%", 1, 1, MOMENT) == "20260304-150607-%other%"
    assert fill_placeholders("%date:yyyy-MM-dd%/a", 1, 1, MOMENT) == "2026-03-04/a"
    assert format_date("d.M.yy h:m:s hhmmss", MOMENT) == "4.3.26 15:6:7 150607"


@pytest.mark.parametrize("prefix", ["../escape", "/tmp/escape", "a/../../escape"])
def test_prefix_cannot_leave_the_folder(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(FileAccessError, match="leaves its folder"):
        next_file_name(tmp_path / "output", prefix, 8, 8)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "results")
    with pytest.raises(KeyboardInterrupt), written_whole(folder / "a.png") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_finished_writing_replaces_the_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "results")
    (folder / "a.png").write_bytes(b"old")
    with written_whole(folder / "a.png") as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in folder.iterdir()] == ["a.png"] and (folder / "a.png").read_bytes() == b"new"


def test_unwritable_folder_is_a_file_access_error(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError), written_whole(tmp_path / "missing" / "a.png"):
        pass


@pytest.mark.parametrize("prefix", ["", ".", "./", "sub/.."])
def test_a_prefix_that_names_nothing_writes_nothing_beside_the_folder(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(FileAccessError, match="no beginning of a file name"):
        next_file_names(tmp_path / "output", prefix, 8, 8, 1)
