from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from kintsugi.core.errors import FileAccessError
from kintsugi.headless.batch import BatchSummary
from kintsugi.headless.batch_plan import plan_batch
from kintsugi.headless.manifest import NAME, Record, read_manifest
from tiny_batch import run_tiny_batch
from tiny_workflow import SHRINK, pixels, write_picture, write_workflow


def batched(
    tmp_path: Path, resume: bool = False, overwrite: bool = False, stop_after: int | None = None, prompt: dict[str, Any] = SHRINK
) -> tuple[BatchSummary, list[Record]]:
    reports: list[Record] = []

    def report(record: Record) -> None:
        reports.append(record)
        if len(reports) == stop_after:
            raise KeyboardInterrupt

    plan = plan_batch(tmp_path / "in", tmp_path / "out", resume, overwrite)
    return run_tiny_batch(write_workflow(tmp_path, prompt), plan, resume, overwrite, report), reports


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index, name in enumerate(("a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp")):
        write_picture(tmp_path / "in" / name, seed=index)
    (tmp_path / "in/notes.txt").write_text("no picture")
    (tmp_path / "in/.hidden.png").write_text("no picture")
    return tmp_path


def results(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != NAME}


def test_the_tree_is_mirrored_with_a_line_per_picture(pictures: Path) -> None:
    summary, reports = batched(pictures)
    assert summary == BatchSummary(done=4, not_pictures=1)
    assert sorted(results(pictures / "out")) == ["a.png", "b.png", "sub/a.png", "sub/deep/c.png"]
    lines = [json.loads(line) for line in (pictures / "out" / NAME).read_text().splitlines()]
    assert [line["input"] for line in lines] == ["a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp"]
    assert lines[1]["outputs"] == ["b.png"]
    assert lines[0]["parameters"]["2"] == {"upscale_method": "bilinear", "scale_by": 0.5}
    assert {"device", "dtype", "micro_batch", "threads"} <= set(lines[0]["settings"])
    assert len(lines[0]["input_sha256"]) == len(lines[0]["workflow_sha256"]) == 64
    assert len(reports) == 4


def test_two_pictures_of_one_stem_do_not_collide(tmp_path: Path) -> None:
    write_picture(tmp_path / "in/x.png", seed=1)
    write_picture(tmp_path / "in/x.webp", seed=2)
    batched(tmp_path)
    assert sorted(results(tmp_path / "out")) == ["x.png", "x.webp.png"]


def test_equal_pictures_of_one_name_each_get_their_result(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_picture(tmp_path / f"in/{folder}/x.png", seed=1)
    assert batched(tmp_path)[0].done == 2
    assert sorted(results(tmp_path / "out")) == ["one/x.png", "two/x.png"]


def test_a_bad_picture_is_recorded_and_the_rest_go_on(pictures: Path) -> None:
    (pictures / "in/a.png").write_bytes(b"\x89PNG broken")
    summary, _ = batched(pictures)
    assert (summary.done, summary.failed) == (3, 1)
    record = read_manifest(pictures / "out")["a.png"]
    assert record.error is not None
    assert record.outputs == []


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_killed_batch_resumes_to_the_same_files(pictures: Path, done: int) -> None:
    batched(pictures)
    whole = results(pictures / "out")
    (pictures / "out").rename(pictures / "whole")
    with pytest.raises(KeyboardInterrupt):
        batched(pictures, stop_after=done)
    (pictures / "out" / NAME).open("a").write('{"input": "cut sho')
    (pictures / "out/.kintsugi-left").mkdir()
    summary, _ = batched(pictures, resume=True)
    assert (summary.kept, summary.done) == (done, 4 - done)
    assert results(pictures / "out") == whole
    assert sorted(read_manifest(pictures / "out")) == sorted(record.input for record in read_manifest(pictures / "whole").values())
    assert len((pictures / "out" / NAME).read_text().splitlines()) == 4


def test_a_result_without_its_line_is_made_again(pictures: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        batched(pictures, stop_after=1)
    left = write_picture(pictures / ("out/a.png" if "b.jpg" in read_manifest(pictures / "out") else "out/b.png"), 3, 3)
    summary, _ = batched(pictures, resume=True)
    assert (summary.kept, summary.done, summary.failed) == (1, 3, 0)
    assert pixels(left).shape == (4, 6, 3)


def test_resuming_redoes_only_what_changed_failed_or_is_missing(pictures: Path) -> None:
    broken = pictures / "in/b.jpg"
    good = broken.read_bytes()
    broken.write_text("broken")
    batched(pictures)
    broken.write_bytes(good)
    write_picture(pictures / "in/a.png", seed=9)
    (pictures / "out/sub/a.png").unlink()
    summary, reports = batched(pictures, resume=True)
    assert (summary.kept, summary.done, summary.failed) == (1, 3, 0)
    assert sorted(record.input for record in reports) == ["a.png", "b.jpg", "sub/a.png"]
    assert len((pictures / "out" / NAME).read_text().splitlines()) == 4


def test_another_workflow_redoes_everything(pictures: Path) -> None:
    batched(pictures)
    changed = {**SHRINK, "2": {**SHRINK["2"], "inputs": {**SHRINK["2"]["inputs"], "scale_by": 0.25}}}
    summary, _ = batched(pictures, resume=True, prompt=changed)
    assert (summary.kept, summary.done) == (0, 4)
    assert pixels(pictures / "out/a.png").shape == (2, 3, 3)


def test_results_of_an_earlier_batch_are_not_touched_unasked(pictures: Path) -> None:
    batched(pictures)
    with pytest.raises(FileAccessError, match="--resume to go on with it, or --overwrite"):
        plan_batch(pictures / "in", pictures / "out", False, False)
    assert batched(pictures, overwrite=True)[0].done == 4


def test_a_foreign_file_in_the_way_fails_that_picture_only(pictures: Path) -> None:
    foreign = write_picture(pictures / "out/a.png", 3, 3)
    summary, _ = batched(pictures, resume=True)
    assert (summary.done, summary.failed) == (3, 1)
    assert pixels(foreign).shape == (3, 3, 3)


def test_results_below_the_input_are_not_read_again(tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a.png")
    for resume in (False, True):
        plan = plan_batch(tmp_path / "in", tmp_path / "in/out", resume, False)
        assert list(plan.stems) == ["a.png"]
        run_tiny_batch(write_workflow(tmp_path), plan, resume)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="no such folder"):
        plan_batch(tmp_path / "gone", tmp_path / "out", False, False)
    with pytest.raises(FileAccessError, match="both input and output"):
        plan_batch(tmp_path, tmp_path / ".", False, False)


@pytest.mark.skipif(sys.platform != "linux", reason="only here are file names bytes")
def test_a_file_name_that_is_no_text_is_restored_and_kept(tmp_path: Path) -> None:
    write_picture(tmp_path / os.fsdecode(b"in/caf\xe9.png"))
    assert batched(tmp_path)[0].done == 1
    assert batched(tmp_path, resume=True)[0].kept == 1
