"""A long night: what a batch holds does not grow with the pictures that it has done."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import psutil
import torch
from kintsugi.core.graph.documents import read_workflow
from kintsugi.headless.batch_worker import Order, Worker
from kintsugi.headless.changes import Changes
from mixed_pictures import write_keeping, write_mixed
from tiny_workflow import on_command_line

COUNT, EARLY = 1000, 200


def test_memory_is_steady_over_a_thousand_pictures(tmp_path: Path) -> None:
    write_mixed(tmp_path / "in", COUNT, 0)
    write_keeping(tmp_path)
    command = [sys.executable, "-m", "kintsugi", "batch", "keeping.json", "in", "out", "--cpu", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = []
        for number, _ in enumerate(process.stdout, 1):
            if number in (EARLY, COUNT):
                held.append(psutil.Process(process.pid).memory_info().rss)
    assert process.returncode == 0 and number == COUNT + 1
    assert held[1] <= 1.05 * held[0]


def test_many_pictures_leave_no_more_tensors_than_a_few(tmp_path: Path) -> None:
    write_mixed(tmp_path / "in", 120, 0)
    document = read_workflow(write_keeping(tmp_path))
    contents = {path.name: path.read_bytes() for path in tmp_path.glob("in/**/scan*")}
    with on_command_line(tmp_path / "out") as (host, _):
        worker = Worker(Order(document, Changes(), "1"), host)
        counts = []
        for number, (name, content) in enumerate(contents.items(), 1):
            assert worker.restore([(name, content)])[0].error is None
            if number in (20, 120):
                gc.collect()
                counts.append(sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects()))
    assert counts[0] == counts[1]
