"""Pictures that go through the networks together come out as if each had been alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kintsugi.core.graph.documents import read_workflow
from kintsugi.core.runtime import LocalHost
from kintsugi.headless.batch import Way, run_batch
from kintsugi.headless.batch_groups import in_groups, parting_nodes
from kintsugi.headless.batch_plan import plan_batch
from kintsugi.headless.batch_worker import Order, Restored, Worker
from kintsugi.headless.changes import Changes, only_loader, picture_inputs
from kintsugi.headless.run import WORKFLOWS, WorkflowRunner
from kintsugi.headless.teams import Threads
from mixed_pictures import write_keeping, write_kind
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

TOGETHER = 4
QUICK = {
    "restore_photo": Changes(embedded=True),
    "tsd_sr": Changes(values={"scale": 1}, embedded=True),
    "instarevive_photo": Changes(values={"scale": 1}, embedded=True),
}


def scans(folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Of all kinds, but of one size."""
    folder.mkdir()
    for index in range(count):
        write_kind(folder / f"scan{index}", index if index % 8 != 4 else index + 1)
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def worker(host: LocalHost, name: str) -> Worker:
    document = read_workflow(WORKFLOWS / f"{name}.json")
    runner = WorkflowRunner(document, QUICK[name])
    loader = only_loader(runner.prompt, picture_inputs(runner.prompt, runner.registry))
    return Worker(Order(document, QUICK[name], loader), replace(host, micro_batch=TOGETHER))


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """How often modules of each class are called inside the block."""
    calls: Counter[str] = Counter()
    handle = register_module_forward_pre_hook(lambda module, _: calls.update([type(module).__name__]))
    try:
        yield calls
    finally:
        handle.remove()


def without_time(restored: Sequence[Restored]) -> list[Restored]:
    return [replace(one, seconds=0) for one in restored]


@pytest.mark.parametrize("name", QUICK)
def test_a_group_gives_the_files_of_its_pictures_alone(host: LocalHost, tmp_path: Path, name: str) -> None:
    restoring, pictures = worker(host, name), scans(tmp_path / "in", TOGETHER)
    alone = [restoring.restore([picture])[0] for picture in pictures]
    with counted_calls() as of_one:
        restoring.restore(pictures[:1])
    with counted_calls() as of_all:
        together = restoring.restore(pictures)
    assert all(one.error is None and len(one.files) == 1 for one in together)
    assert without_time(together) == without_time(alone)
    assert of_all == of_one and of_one["Conv2d"] > 10


def test_a_broken_picture_takes_no_other_of_its_group_with_it(host: LocalHost, tmp_path: Path) -> None:
    restoring, pictures = worker(host, "restore_photo"), scans(tmp_path / "in", 3)
    pictures[1] = (pictures[1][0], pictures[1][1][:80])
    first, broken, last = restoring.restore(pictures)
    assert pictures[1][0] in str(broken.error) and first.error is None and last.error is None


def test_neighbours_of_one_size_are_grouped(tmp_path: Path) -> None:
    contents = []
    for index, size in enumerate([(8, 8)] * 6 + [(8, 9)] * 2 + [(8, 8)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
        contents.append((index, (tmp_path / f"{index}.png").read_bytes()))
    contents.insert(3, (99, b"no picture"))

    def groups(largest: int) -> list[list[int]]:
        return [[index for index, _ in group] for group in in_groups(contents, largest)]

    assert groups(4) == [[0, 1, 2], [99], [3, 4, 5], [6, 7], [8]]
    assert groups(2) == [[0, 1], [2], [99], [3, 4], [5], [6, 7], [8]]
    assert groups(1) == [[index] for index in (0, 1, 2, 99, 3, 4, 5, 6, 7, 8)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("restore_photo", {"Restore"}), ("tsd_sr", {"Restore"}), ("fluxir", set()), ("degrade_and_score", set()), ("instantir", set())],
)
def test_graphs_part_their_pictures_before_anything_looks_at_several(name: str, expected: set[str]) -> None:
    runner = WorkflowRunner(WORKFLOWS / f"{name}.json", Changes())
    loader = only_loader(runner.prompt, picture_inputs(runner.prompt, runner.registry))
    titles = {runner.prompt[node]["_meta"]["title"] for node in parting_nodes(runner.prompt, runner.registry, loader)}
    assert titles == expected


def test_a_batch_of_groups_writes_what_one_of_single_pictures_does(host: LocalHost, tmp_path: Path) -> None:
    scans(tmp_path / "in", 10)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    order = Order(read_workflow(write_keeping(tmp_path)), Changes(), "1")
    results = []
    for together in (1, TOGETHER):
        plan = plan_batch(tmp_path / "in", tmp_path / str(together), resume=False, overwrite=False)
        restoring = Worker(order, replace(host, micro_batch=TOGETHER))
        with Threads(restoring, lanes=2) as team:
            summary = run_batch(team, plan, Way({}, restoring.describe(), together), False, False, lambda record: None)
        assert (summary.done, summary.failed) == (10, 1)
        results.append({path.name: path.read_bytes() for path in plan.target.iterdir() if path.suffix != ".jsonl"})
    assert results[0] == results[1]
