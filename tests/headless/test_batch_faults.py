"""What nights bring: each ends in a clear message, with nothing half done, and goes on with --resume."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kintsugi.core.errors import FileAccessError
from kintsugi.headless.batch import BatchSummary
from kintsugi.headless.batch_plan import plan_batch
from kintsugi.headless.cli import run_command_line
from kintsugi.headless.manifest import NAME, Record, read_manifest
from mixed_pictures import write_keeping, write_mixed
from tiny_batch import run_tiny_batch

COUNT = 16
RESUME = "What is finished is kept: when the folder can be written again, go on with --resume."


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_mixed(tmp_path / "in", COUNT, 0)
    write_keeping(tmp_path)
    return tmp_path


def resumed(scans: Path) -> BatchSummary:
    plan = plan_batch(scans / "in", scans / "out", resume=True, overwrite=False)
    return run_tiny_batch(scans / "keeping.json", plan, resume=True)


def left_over(folder: Path) -> list[Path]:
    """Files that no line of the manifest is about, temporary ones among them."""
    told = {folder / name for record in read_manifest(folder).values() for name in record.outputs}
    return [path for path in folder.rglob("*") if path.is_file() and path not in told and path.name != NAME]


def test_a_full_disk_stops_the_batch_and_loses_nothing(scans: Path) -> None:
    """A limit on the size of files stands in for the disk: the manifest is the first to reach it."""
    limit = 6_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "kintsugi", "batch", "keeping.json", "in", "out", "--cpu"]
    process = subprocess.run(command, cwd=scans, preexec_fn=limited, capture_output=True, text=True, timeout=120)
    assert process.returncode != 0 and "Traceback" not in process.stderr
    assert f"out/{NAME}: cannot be written (File too large). {RESUME}" in process.stderr
    done = sum(record.is_done(scans / "out") for record in read_manifest(scans / "out").values())
    assert 3 < done < COUNT and len(left_over(scans / "out")) <= 1
    assert resumed(scans) == BatchSummary(done=COUNT - done, kept=done)
    assert left_over(scans / "out") == []


def test_an_output_folder_that_goes_away_is_not_made_again_elsewhere(scans: Path) -> None:
    gone = scans / "unplugged"

    def unplug(record: Record) -> None:
        if not gone.exists():
            shutil.move(scans / "out", gone)

    plan = plan_batch(scans / "in", scans / "out", resume=False, overwrite=False)
    with pytest.raises(FileAccessError) as told:
        run_tiny_batch(scans / "keeping.json", plan, report=unplug)
    assert str(told.value) == f"{scans / 'out'}: the folder of the results is gone. {RESUME}"
    assert not (scans / "out").exists()
    shutil.move(gone, scans / "out")
    assert resumed(scans) == BatchSummary(done=COUNT - 1, kept=1)


def test_a_place_that_can_no_longer_be_written_stops_the_batch(scans: Path) -> None:
    (scans / "out").mkdir()
    (scans / "out" / "b").write_text("a file where a folder must be")
    plan = plan_batch(scans / "in", scans / "out", resume=False, overwrite=False)
    with pytest.raises(FileAccessError, match=r"out/b/c/scan\d\.\w+: cannot be written \(Not a directory\)\. What is finished is kept"):
        run_tiny_batch(scans / "keeping.json", plan)
    (scans / "out" / "b").unlink()
    summary = resumed(scans)
    assert summary.failed == 0 and summary.done + summary.kept == COUNT


def test_pictures_that_cannot_be_read_are_told_and_the_rest_go_on(scans: Path) -> None:
    (scans / "in" / "gone.png").symlink_to(scans / "nowhere.png")
    (scans / "in" / "loop.png").symlink_to(scans / "in" / "loop.png")
    plan = plan_batch(scans / "in", scans / "out", resume=False, overwrite=False)
    assert run_tiny_batch(scans / "keeping.json", plan) == BatchSummary(done=COUNT, failed=2)
    records = read_manifest(scans / "out")
    assert "gone.png: cannot be read: No such file" in str(records["gone.png"].error)
    assert "loop.png: cannot be read: Too many levels" in str(records["loop.png"].error)
    assert all(record.input_sha256 for record in records.values() if record.error is None)


def test_a_clock_that_jumps_changes_nothing(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle((0.0, 1e9, -1e9, 3600.0))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    plan = plan_batch(scans / "in", scans / "out", resume=False, overwrite=False)
    assert run_tiny_batch(scans / "keeping.json", plan).done == COUNT
    assert all(0 < record.seconds < 60 for record in read_manifest(scans / "out").values())
    monkeypatch.undo()
    assert resumed(scans) == BatchSummary(kept=COUNT)


def test_a_picture_that_changed_its_age_alone_is_kept(scans: Path) -> None:
    resumed(scans)
    os.utime(scans / "in" / "scan0.png", (0, 0))
    assert resumed(scans) == BatchSummary(kept=COUNT)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--input", "Nobody"), "no node has the id or title 'Nobody'"),
        (("--input", "Colour"), "'Colour' loads no picture. Nodes that do: 1 'Photo'."),
        (("--ray", "127.0.0.1:1"), "no Ray cluster can be reached"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_written(
    scans: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], fault: str
) -> None:
    arguments = ["batch", str(scans / "keeping.json"), str(scans / "in"), str(scans / "out"), "--cpu", *options]
    assert run_command_line(arguments) == 2
    assert fault in capsys.readouterr().err
    assert not (scans / "out").exists()


def test_events_are_lines_that_machines_can_read(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["batch", str(scans / "keeping.json"), str(scans / "in"), str(scans / "out"), "--cpu", "--input", "Photo", "--json"]
    assert run_command_line(arguments) == 0
    *pictures, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert {picture["event"] for picture in pictures} == {"picture"} and len(pictures) == COUNT
    assert summary == {"event": "summary", "done": COUNT, "kept": 0, "failed": 0, "not_pictures": 0}
    assert {picture["input"]: picture["outputs"] for picture in pictures} == {
        record.input: record.outputs for record in read_manifest(scans / "out").values()
    }
