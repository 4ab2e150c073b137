from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.core.imaging.photo import format_of
from kintsugi.headless.changes import Changes
from kintsugi.headless.restore import Restored, plan, restore_photos
from kintsugi.headless.run import WorkflowRunner
from PIL import Image
from tiny_workflow import on_command_line, pixels, stock_runner, write_picture, write_workflow


def restored(tmp_path: Path, photos: list[Path], out: str, overwrite: bool = False) -> list[Restored]:
    tasks = plan(photos, out)
    with on_command_line(tasks[0].folder) as (_, folders):
        return restore_photos(stock_runner(write_workflow(tmp_path)), tasks, folders, overwrite, lambda result: None)


def test_one_photo_goes_to_the_file_that_was_named(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "old.png")
    (result,) = restored(tmp_path, [photo], str(tmp_path / "new/good.png"))
    assert (result.outputs, result.width, result.height, result.error) == ([tmp_path / "new/good.png"], 6, 4, None)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["good.png"]


@pytest.mark.parametrize("out", ["out/", "out"])
def test_several_photos_go_to_a_folder_under_their_names(tmp_path: Path, out: str) -> None:
    photos = [write_picture(tmp_path / name) for name in ("a.png", "one/b.png", "two/b.png")]
    results = restored(tmp_path, photos, f"{tmp_path}/{out}")
    assert [result.outputs[0].name for result in results] == ["a.png", "b.png", "b.png_2.png"]


def test_equal_photos_of_one_name_each_get_their_result(tmp_path: Path) -> None:
    photos = [write_picture(tmp_path / folder / "x.png", seed=1) for folder in ("one", "two")]
    results = restored(tmp_path, photos, f"{tmp_path}/out/")
    assert [result.error for result in results] == [None, None]
    assert results[0].outputs[0] != results[1].outputs[0]


def test_a_bad_photo_never_stops_the_rest(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    photos = [write_picture(tmp_path / "a.png"), broken, tmp_path / "missing.png", write_picture(tmp_path / "z.png")]
    results = restored(tmp_path, photos, f"{tmp_path}/out/")
    assert [result.error is None for result in results] == [True, False, False, True]
    assert "broken.png" in str(results[1].error)
    assert "missing.png" in str(results[2].error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "z.png"]


def test_a_result_that_exists_is_refused_before_anything_runs(tmp_path: Path) -> None:
    photos = [write_picture(tmp_path / name) for name in ("a.png", "b.png")]
    kept = write_picture(tmp_path / "out/b.png", 3, 3)
    with pytest.raises(FileAccessError, match=r"b\.png: exists already.*--overwrite"):
        restored(tmp_path, photos, f"{tmp_path}/out/")
    assert pixels(kept).shape == (3, 3, 3)
    assert not (tmp_path / "out/a.png").exists()
    restored(tmp_path, photos, f"{tmp_path}/out/", overwrite=True)
    assert pixels(kept).shape == (4, 6, 3)


def test_a_format_that_the_workflow_cannot_write_is_named(tmp_path: Path) -> None:
    (result,) = restored(tmp_path, [write_picture(tmp_path / "a.png")], str(tmp_path / "b.webp"))
    assert result.error is not None
    assert "writes .png files only" in result.error
    assert not (tmp_path / "b.webp").exists()


def test_a_name_without_a_picture_ending_is_refused(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "a.png")
    with pytest.raises(BadValueError, match=r"has no picture ending.*result\.png.*result/"):
        plan([photo], "result")
    with pytest.raises(BadValueError, match=r"\.docx"):
        plan([photo], "result.docx")


def test_a_folder_among_the_photos_is_sent_to_batch(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="kintsugi batch"):
        plan([tmp_path], "out/")


def test_several_photos_do_not_go_into_one_file(tmp_path: Path) -> None:
    target = write_picture(tmp_path / "target.png")
    with pytest.raises(FileAccessError, match="several photos need a folder"):
        plan([tmp_path / "a.png", tmp_path / "b.png"], str(target))


PHOTO_COPY: dict[str, Any] = {
    "1": {"class_type": "KintsugiLoadPhoto", "inputs": {"image": "any.png"}},
    "2": {
        "class_type": "KintsugiSavePhoto",
        "inputs": {
            "images": ["1", 0],
            "photo": ["1", 2],
            "filename_prefix": "restored",
            "format": "same as source",
            "bit_depth": "same as source",
            "quality": 95,
            "keep_metadata": True,
        },
    },
}


@pytest.mark.parametrize(("ending", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("tif", "TIFF")])
def test_the_ending_of_the_name_decides_the_format(tmp_path: Path, ending: str, kind: str) -> None:
    tasks = plan([write_picture(tmp_path / "a.png")], f"{tmp_path}/b.{ending}")
    with on_command_line(tmp_path) as (_, folders):
        runner = WorkflowRunner(write_workflow(tmp_path, PHOTO_COPY), Changes(file_format=format_of(Path(f"b.{ending}"))))
        (result,) = restore_photos(runner, tasks, folders, False, lambda result: None)
    assert result.outputs == [tmp_path / f"b.{ending}"]
    with Image.open(result.outputs[0]) as image:
        assert image.format == kind


def test_in_a_folder_each_photo_keeps_its_own_format(tmp_path: Path) -> None:
    photos = [write_picture(tmp_path / name) for name in ("a.jpg", "b.webp", "b.png")]
    with on_command_line(tmp_path / "out") as (_, folders):
        runner = WorkflowRunner(write_workflow(tmp_path, PHOTO_COPY), Changes())
        results = restore_photos(runner, plan(photos, f"{tmp_path}/out/"), folders, False, lambda result: None)
    assert [result.outputs[0].name for result in results] == ["a.jpg", "b.webp", "b.png"]
