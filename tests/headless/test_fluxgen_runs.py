"""The run of a FluxGen data set: stopped anywhere it ends in the same files, and nothing finished is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kintsugi.core.degradation.pipeline import replay
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.core.imaging.png_bytes import from_png
from kintsugi.core.methods.fluxgen import make_pair
from kintsugi.core.quality import measure
from kintsugi.headless.fluxgen import Summary, agreed, run_fluxgen
from kintsugi.headless.fluxgen_folder import require_free
from kintsugi.headless.fluxgen_worker import Order
from kintsugi.headless.teams import Task, Threads
from kintsugi.headless.teams.crew import GivenUp
from pair_reader import read_pairs
from quick_fluxgen import ORDER, QuickWorker, files_of


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, order: Order = ORDER) -> tuple[Summary, dict[str, int]]:
    worker = QuickWorker(order)
    with Threads(worker) as team:
        return run_fluxgen(folder, order, team), worker.calls


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For pictures as small as these a second one only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def test_a_line_tells_everything_of_its_pair(whole: Path) -> None:
    drawn, scored, index = (lines(whole / name) for name in ("pool.jsonl", "scores.jsonl", "index.jsonl"))
    assert [line["seed"] for line in drawn] == [3 + number for number in range(9)]
    assert [line["prompt"] for line in drawn] == ["", "a cat"] * 4 + [""]
    assert [line["index"] for line in scored] == list(range(9))
    for line in index:
        place = line["index"]
        pool_line = {key: value for key, value in line.items() if key not in ("scores", "degradation", "shard")}
        assert pool_line == drawn[place] and line["scores"] == scored[place]["scores"]
        assert line["key"] == f"{place:08d}" and (line["width"], line["height"]) == (48, 32)


def test_the_scores_are_those_of_the_pool_and_the_selection_is_their_percentiles(whole: Path) -> None:
    scored = lines(whole / "scores.jsonl")
    for line in scored[:3]:
        picture = from_png((whole / f"pool/{line['index']:08d}.png").read_bytes(), "")
        assert line["scores"] == measure(picture.movedim(3, 1), None, ["sharpness", "noise"])
    sharpness, noise = (np.array([line["scores"][name] for line in scored]) for name in ("sharpness", "noise"))
    passed = (sharpness >= np.percentile(sharpness, 15)) & (noise <= np.percentile(noise, 85))
    assert [line["index"] for line in lines(whole / "index.jsonl")] == list(np.flatnonzero(passed))
    assert 0 < passed.sum() < 9


def test_shards_hold_the_pairs_of_the_index_in_its_order(whole: Path) -> None:
    index = lines(whole / "index.jsonl")
    names = sorted(path.name for path in whole.glob("*.tar"))
    assert names == ["000000.tar", "000001.tar", "000002.tar"][: -(-len(index) // 3)]
    pairs = [pair for name in names for pair in read_pairs(whole / name)]
    assert [facts for _, _, facts in pairs] == index
    assert [facts["shard"] for facts in index] == [names[place // 3] for place in range(len(index))]
    for high, low, facts in pairs:
        assert high.shape == (32, 48, 3) and low.shape == (16, 24, 3)
        planes = torch.from_numpy(high.copy()).permute(2, 0, 1)[None] / 255
        levels = replay(planes, [facts["degradation"]])[0].permute(1, 2, 0) * 255
        np.testing.assert_array_equal(levels.round().numpy(), low)


def test_a_pair_depends_on_its_picture_and_seed_alone(whole: Path) -> None:
    high, low, facts = list(read_pairs(whole / "000001.tar"))[-1]
    picture = from_png((whole / f"pool/{facts['key']}.png").read_bytes(), "")
    pair = make_pair(picture, facts["seed"], scale=2)
    np.testing.assert_array_equal((pair.high_quality[0] * 255).round().numpy(), high)
    np.testing.assert_array_equal((pair.low_quality[0] * 255).round().numpy(), low)


class Recorder:
    """Copies the folder before and after every change in it: what is on the disk if the process is killed there."""

    def __init__(self, folder: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.copies, self.count = folder, copies, 0
        rename, append = Path.replace, Path.open

        def replacing(path: Path, target: Path) -> Path:
            self.copy()
            moved = rename(path, target)
            self.copy()
            return moved

        def opening(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode == "a":
                self.copy()
            return append(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "replace", replacing)
        monkeypatch.setattr(Path, "open", opening)

    def copy(self) -> None:
        shutil.copytree(self.folder, self.copies / f"{self.count:03}")
        self.count += 1


def test_killed_between_any_two_writes_it_ends_in_the_same_files(whole: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = Recorder(tmp_path / "run", tmp_path / "copies", monkeypatch)
        run(tmp_path / "run")
    assert recorder.count > 40
    expected = files_of(whole)
    assert files_of(tmp_path / "run") == expected
    for copy in sorted((tmp_path / "copies").iterdir()):
        drawn, scored = (count_finished(copy, name) for name in ("pool.jsonl", "scores.jsonl"))
        written = {line["shard"] for line in lines(copy / "index.jsonl")} if (copy / "index.jsonl").exists() else set()
        summary, calls = run(copy)
        assert files_of(copy) == expected, copy.name
        assert calls["draw"] == summary.drawn == 9 - drawn and calls["score"] == 9 - scored
        assert calls["pair"] == summary.kept - 3 * len(written) or len(written) == len(summary.shards)


def count_finished(folder: Path, name: str) -> int:
    return len(lines(folder / name)) if (folder / name).exists() else 0


@pytest.mark.parametrize("name", ["pool.jsonl", "scores.jsonl", "index.jsonl"])
@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_line_that_was_cut_short_is_written_again_whole(whole: Path, tmp_path: Path, name: str, cut: int) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-cut])
    run(tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(whole)


def test_a_finished_run_does_nothing_even_without_its_pool(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/pool")
    summary, calls = run(tmp_path / "run")
    assert calls == {"draw": 0, "score": 0, "pair": 0}
    assert (summary.drawn, summary.found, summary.kept + summary.dropped) == (0, 9, 9)


def test_a_picture_or_shard_that_was_removed_is_made_again(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/pool/00000004.png").unlink()
    (tmp_path / "run/000000.tar").unlink()
    assert run(tmp_path / "run")[1] == {"draw": 1, "score": 0, "pair": 3}
    assert files_of(tmp_path / "run") == files_of(whole)


class Shuffled(Threads):
    """Answers come in another order, as those of several workers do."""

    def map(self, method: str, tasks: Iterable[Task], given_up: GivenUp | None = None) -> Iterator[tuple[int, Any]]:
        answers = list(super().map(method, tasks, given_up))
        order = torch.randperm(len(answers), generator=torch.Generator().manual_seed(len(answers))).tolist()
        yield from (answers[number] for number in order)


def test_the_order_of_answers_shows_in_no_file(whole: Path, tmp_path: Path) -> None:
    with Shuffled(QuickWorker()) as team:
        run_fluxgen(tmp_path / "run", ORDER, team)
    assert files_of(tmp_path / "run") == files_of(whole)


def test_other_settings_are_refused_with_what_differs(whole: Path) -> None:
    before = files_of(whole)
    for changed, words in (
        (replace(ORDER, count=10), "count was 9, now 10"),
        (replace(ORDER, drawing=replace(ORDER.drawing, steps=2), scale=4), "steps was 1, now 2; scale was 2, now 4"),
        (replace(ORDER, metrics="noise"), r"metrics was \['sharpness', 'noise'\], now \['noise'\]"),
        (replace(ORDER, prompts=("", "a dog")), "prompts_sha256 was"),
        (replace(ORDER, offload="layerwise fp8"), "eight_bits was False, now True"),
    ):
        with pytest.raises(BadValueError, match=f"whole: the run was begun with other settings: {words}"):
            run(whole, changed)
    run(whole, replace(ORDER, offload="group"))
    assert files_of(whole) == before


def test_workers_that_would_give_other_pictures_are_refused() -> None:
    with pytest.raises(BadValueError, match="one worker has device cpu, another cuda"):
        agreed([{"device": "cpu"}, {"device": "cpu"}, {"device": "cuda"}])
    assert agreed([{"device": "cpu"}] * 2) == {"device": "cpu"}


def test_a_folder_with_something_else_in_it_is_left_alone(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    require_free(other, resume=True)
    other.mkdir()
    require_free(other, resume=False)
    require_free(whole, resume=True)
    with pytest.raises(FileAccessError, match=r"holds a run already\. Add --resume"):
        require_free(whole, resume=False)
    (other / "mine.txt").touch()
    for resume in (True, False):
        with pytest.raises(FileAccessError, match="holds other files"):
            require_free(other, resume)
    with pytest.raises(FileAccessError, match="is a file"):
        require_free(other / "mine.txt", resume=False)


def test_settings_that_cannot_be_read_stop_the_run(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/settings.json").write_text("{")
    with pytest.raises(FileAccessError, match=r"settings\.json: cannot be read"):
        run(tmp_path / "run")


def test_a_damaged_picture_of_the_pool_is_named(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/scores.jsonl").unlink()
    picture = tmp_path / "run/pool/00000004.png"
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(Exception, match=r"00000004\.png: the picture is damaged"):
        run(tmp_path / "run")
    picture.unlink()
    run(tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(whole)


def test_a_score_that_is_no_number_drops_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuickWorker, "score", lambda self, where, png, metrics: {"noise": None if "04.png" in where else 1.0})
    summary, _ = run(tmp_path / "run", replace(ORDER, metrics="noise"))
    assert (summary.kept, summary.dropped) == (8, 1)
    assert [line["index"] for line in lines(tmp_path / "run/index.jsonl")] == [0, 1, 2, 3, 5, 6, 7, 8]
