"""Part of `make bench`: a folder through `kintsugi batch` against a plain loop, and against what the processors could do at best.

The loop reads, restores and writes one picture after the other with all cores. At best: the seconds that one core needs for all the work,
shared among the cores. Pictures count once everything is loaded, until the last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kintsugi.headless.console import say_table
from PIL import Image

SAMPLE = Path(__file__).parent.parent / "docs" / "sample" / "clean.png"
WORKFLOW = "restore_photo"
PICTURES, FIRST, WIDTH, HEIGHT = 40, 8, 384, 288
LOOP = """
import sys, time
from pathlib import Path
import torch
from kintsugi.core.folders import Folders
from kintsugi.headless.changes import Changes, only_loader, picture_inputs
from kintsugi.headless.host import command_line_host
from kintsugi.headless.options import HostOptions
from kintsugi.headless.run import WorkflowRunner, find_workflow
source, target, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
folders = Folders(input=source, output=target)
with command_line_host(HostOptions(cpu=True), folders):
    runner = WorkflowRunner(find_workflow(sys.argv[4]), Changes(embedded=True))
    loader = only_loader(runner.prompt, picture_inputs(runner.prompt, runner.registry))
    for path in sorted(source.iterdir()):
        runner.run({loader: path}, folders)
        print('{"event": "picture"}', flush=True)
"""


def seconds_of(command: list[str]) -> float:
    """From the first pictures, while models are loaded, to the last one."""
    moments = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if json.loads(line)["event"] == "picture":
                moments.append(time.perf_counter())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return moments[-1] - moments[FIRST - 1]


def make_pictures(folder: Path) -> None:
    with Image.open(SAMPLE) as sample:
        for index in range(PICTURES):
            left, top = 3 * index, 5 * index
            sample.crop((left, top, left + WIDTH, top + HEIGHT)).save(folder / f"{index:02d}.png")


def main() -> None:
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in"
        source.mkdir()
        make_pictures(source)

        def loop(threads: int) -> float:
            target = Path(place) / f"loop {threads}"
            target.mkdir()
            return seconds_of([sys.executable, "-c", LOOP, str(source), str(target), str(threads), WORKFLOW])

        def batch(workers: int) -> float:
            command = [sys.executable, "-m", "kintsugi", "batch", WORKFLOW, str(source), str(Path(place) / f"batch {workers}")]
            return seconds_of([*command, "--cpu", "--embedded", "--json", "--workers", str(workers)])

        best, plain = loop(1) / cores, loop(cores)
        rows = [("a plain loop", plain), *((f"kintsugi batch --workers {workers}", batch(workers)) for workers in (1, cores))]
    pictures = PICTURES - FIRST
    heads = (f"{pictures} pictures of {WIDTH} x {HEIGHT}, {cores} cores", "a second", "against the loop", "of what is possible")
    say_table(heads, [(name, f"{pictures / s:.2f}", f"{plain / s:.2f}", f"{best / s:.0%}") for name, s in rows])


if __name__ == "__main__":
    main()
