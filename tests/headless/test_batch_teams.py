"""300 pictures of all kinds: the same files from one worker, two, or a Ray cluster, and after every kill."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from kintsugi.headless.manifest import NAME, read_manifest
from mixed_pictures import write_keeping, write_mixed

COUNT, BROKEN = 300, 12
DONE = COUNT - BROKEN


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the workflow and of `in`."""
    folder = tmp_path_factory.mktemp("night")
    write_mixed(folder / "in", COUNT, BROKEN)
    write_keeping(folder)
    return folder


@pytest.fixture(scope="module")
def whole(scans: Path) -> dict[str, str]:
    """What an uninterrupted run of one worker makes."""
    assert finished(scans, "whole")["done"] == DONE
    return hashes(scans / "whole")


@contextmanager
def started(scans: Path, target: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kintsugi", "batch", str(scans / "keeping.json"), str(scans / "in"), str(scans / target)]
    with subprocess.Popen([*command, "--cpu", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def finished(scans: Path, target: str, *options: str) -> dict[str, Any]:
    """The summary of a run to its end."""
    with started(scans, target, *options) as process:
        output, complaints = process.communicate(timeout=300)
    assert process.returncode == 1, complaints
    *_, summary = map(json.loads, output.splitlines())
    assert summary.pop("event") == "summary"
    return dict(summary)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_picture_is_done_or_told_in_order(scans: Path, whole: dict[str, str]) -> None:
    records = list(read_manifest(scans / "whole").values())
    assert len(records) == COUNT and len(whole) == DONE
    failed = [record for record in records if record.error]
    assert len(failed) == BROKEN and all(record.input.startswith("broken/") and record.input in str(record.error) for record in failed)
    names = [record.input for record in records]
    assert names.index("scan3.png") < names.index("scan12.jpg") < names.index("scan102.png")
    record = read_manifest(scans / "whole")["scan0.png"]
    assert record.metrics["Colour"]["colorfulness"] is not None
    assert (scans / "whole" / "scan0.png").stat().st_mtime_ns == (scans / "in" / "scan0.png").stat().st_mtime_ns


@pytest.mark.parametrize("options", [("--workers", "2"), ("--ray", "local", "--workers", "2")], ids=["two_workers", "ray"])
def test_the_files_do_not_depend_on_who_makes_them(scans: Path, whole: dict[str, str], options: tuple[str, ...]) -> None:
    target = options[0].strip("-")
    assert finished(scans, target, *options) == {"done": DONE, "kept": 0, "failed": BROKEN, "not_pictures": 0}
    assert hashes(scans / target) == whole
    assert list(read_manifest(scans / target)) == list(read_manifest(scans / "whole"))


@pytest.mark.parametrize("moment", random.Random(8).sample(range(1, COUNT - 10), 5))
def test_a_run_killed_at_any_moment_resumes_to_the_same_files(scans: Path, whole: dict[str, str], moment: int) -> None:
    target = f"killed {moment}"
    with started(scans, target, *(("--workers", "2") if moment % 2 else ())) as process:
        for _, _ in zip(range(moment), events(process), strict=False):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    kept = sum(record.is_done(scans / target) for record in read_manifest(scans / target).values())
    assert kept + BROKEN > 0 and kept >= moment - BROKEN
    assert finished(scans, target, "--resume") == {"done": DONE - kept, "kept": kept, "failed": BROKEN, "not_pictures": 0}
    assert hashes(scans / target) == whole
    assert list(read_manifest(scans / target)) == list(read_manifest(scans / "whole"))


@pytest.mark.parametrize("options", [("--workers", "2"), ("--ray", "local", "--workers", "2")], ids=["process", "ray"])
def test_the_pictures_of_a_killed_worker_are_done_by_others(scans: Path, whole: dict[str, str], options: tuple[str, ...]) -> None:
    target = f"worker of {options[0]}"
    with started(scans, target, *options) as process:
        seen = []
        for event in events(process):
            seen.append(event)
            if len(seen) == 20:
                one_worker(process.pid, "ray" in target).kill()
        process.wait(60)
    *pictures, summary = seen
    assert summary == {"event": "summary", "done": DONE, "kept": 0, "failed": BROKEN, "not_pictures": 0}
    assert len({picture["input"] for picture in pictures}) == len(pictures) == COUNT
    assert hashes(scans / target) == whole


def one_worker(parent: int, on_ray: bool) -> psutil.Process:
    """A process that restores: a spawned one, or an actor's, which renames itself."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(parent).children(recursive=True):
            words = " ".join(child.cmdline())
            if words.startswith("ray::Post") if on_ray else "spawn_main" in words:
                return child
        time.sleep(0.1)
    raise AssertionError("no worker was found")
