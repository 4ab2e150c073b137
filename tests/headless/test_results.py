from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kintsugi.core.errors import FileAccessError
from kintsugi.headless.results import final_names, move_all, output_stems, staging_folder


def test_equal_stems_keep_their_whole_names() -> None:
    assert output_stems(["a.jpg", "a.png", "b.png", "sub/a.png"]) == ["a.jpg", "a.png", "b", "sub/a"]


def test_equal_names_are_numbered() -> None:
    assert output_stems(["x.png", "x.png", "X.PNG"]) == ["x.png", "x.png_2", "X.PNG_3"]


@given(st.lists(st.text("aA.jpgn/_2", min_size=1, max_size=12).filter(lambda name: not name.endswith((".", "/"))), max_size=8))
def test_no_two_results_have_one_name(names: list[str]) -> None:
    stems = output_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names)


def test_several_results_of_one_picture_are_numbered() -> None:
    assert final_names([".png", ".png", ".jpg"], Path("out"), "a") == [Path("out/a.png"), Path("out/a_2.png"), Path("out/a_3.jpg")]
    assert final_names([".png"], Path("out"), "a.png") == [Path("out/a.png")]


def test_nothing_is_moved_when_one_name_is_taken(tmp_path: Path) -> None:
    written = [tmp_path / "1.png", tmp_path / "2.png"]
    for path in written:
        path.write_text("new")
    taken = tmp_path / "out/b.png"
    taken.parent.mkdir()
    taken.write_text("old")
    final = [tmp_path / "out/a.png", taken]
    with pytest.raises(FileAccessError, match=r"b\.png: exists already.*--overwrite"):
        move_all(written, final, overwrite=False)
    assert [path.name for path in taken.parent.iterdir()] == ["b.png"]
    move_all(written, final, overwrite=True)
    assert [path.read_text() for path in final] == ["new", "new"]


def test_the_staging_folder_goes_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path / "out") as staging:
        (staging / "half.png").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match="cannot be written"), staging_folder(tmp_path / "file/out"):
        pass
