"""`kintsugi fluxgen` as a person meets it: killed and gone on with, by several workers, and what it refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.core.imaging.png_bytes import to_png
from kintsugi.core.methods.fluxgen import Drawing, draw_record
from kintsugi.core.weights.priors import load_prior
from kintsugi.headless.cli import run_command_line
from pair_reader import read_pairs
from quick_fluxgen import files_of
from test_cli import Captured, in_a_process, kintsugi

SMALL = ("--embedded", "--cpu", "--width", "64", "--height", "64", "--steps", "2", "--seed", "5")
COUNT, SHARD = 40, 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes that are started here have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(folder: Path, *more: object, count: int = COUNT, shard: int = SHARD) -> list[str]:
    return [str(word) for word in ("fluxgen", "-o", folder, "--count", count, "--shard-size", shard, *SMALL, *more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 that nothing stopped."""
    folder = tmp_path_factory.mktemp("fluxgen") / "whole"
    assert run_command_line(command(folder)) == 0
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_when(folder: Path, ledger: str, reached: int, *more: object) -> None:
    """Start a run, or go on with it, and kill it as soon as the file has that many lines."""
    process = in_a_process(*command(folder, *more))
    deadline = time.monotonic() + 120
    while (folder / ledger).read_bytes().count(b"\n") < reached if (folder / ledger).exists() else True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_in_the_files_of_an_uninterrupted_run(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(folder, "pool.jsonl", COUNT // 2)
    assert not list(folder.glob("*.tar"))
    drawn = {path: path.stat().st_mtime_ns for path in folder.glob("pool/*.png")}
    assert COUNT // 2 <= len(drawn) < COUNT
    kill_when(folder, "scores.jsonl", COUNT // 2, "--resume")
    kill_when(folder, "index.jsonl", SHARD, "--resume")
    assert all(list(read_pairs(shard)) for shard in folder.glob("*.tar"))
    assert run_command_line(command(folder, "--resume")) == 0
    assert files_of(folder) == files_of(whole)
    again = [path for path, time_ in drawn.items() if path.stat().st_mtime_ns != time_]
    assert len(again) <= 1, "only what was not in the list yet is drawn again"


def test_the_records_are_forty_and_each_is_there_once(whole: Path) -> None:
    assert [line["seed"] for line in lines(whole / "pool.jsonl")] == list(range(5, 45))
    index = lines(whole / "index.jsonl")
    pairs = [facts for shard in sorted(whole.glob("*.tar")) for _, _, facts in read_pairs(shard)]
    assert pairs == index and len({facts["key"] for facts in pairs}) == len(index) < COUNT
    assert {line["width"] for line in lines(whole / "pool.jsonl")} == {64, 48, 32}
    assert len({content for name, content in files_of(whole).items() if name.startswith("pool/")}) == COUNT


def test_a_record_is_what_its_seed_alone_gives(whole: Path) -> None:
    prior = load_prior("flux", "embedded")
    for index in (0, 17, 39):
        picture = draw_record(prior, "", 5 + index, Drawing(64, 64, 2))
        assert (whole / f"pool/{index:08d}.png").read_bytes() == to_png(picture)


@pytest.mark.slow
def test_more_processes_give_the_same_files(whole: Path, tmp_path: Path) -> None:
    assert run_command_line(command(tmp_path / "run", "--workers", 2)) == 0
    assert files_of(tmp_path / "run") == files_of(whole)


@pytest.mark.slow
def test_actors_of_ray_give_the_same_files(tmp_path: Path) -> None:
    assert run_command_line(command(tmp_path / "alone", count=4)) == 0
    assert run_command_line(command(tmp_path / "ray", "--ray", "local", "--workers", 2, count=4)) == 0
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "alone")


def test_it_tells_what_it_did_for_people_and_for_programs(whole: Path, capsys: Captured, caplog: pytest.LogCaptureFixture) -> None:
    kept = len(lines(whole / "index.jsonl"))
    code, out, _ = kintsugi(*command(whole, "--resume"), capsys=capsys)
    assert code == 0
    assert out.splitlines()[0] == "0 pictures drawn with embedded, 40 were there."
    assert out.splitlines()[1].startswith(f"{kept} kept, with sharpness at least ")
    assert out.splitlines()[1].endswith(f"; {COUNT - kept} dropped.")
    assert out.splitlines()[2] == f"Shards: {-(-kept // SHARD)}, in {whole}."
    assert "Selecting by sharpness, noise, blockiness" in caplog.text
    report = json.loads(kintsugi(*command(whole, "--resume", "--json"), capsys=capsys)[1])
    assert (report["weights"], report["drawn"], report["found"], report["kept"]) == ("embedded", 0, 40, kept)
    assert report["shards"] == sorted(path.name for path in whole.glob("*.tar"))
    assert set(report["metrics"]) == {"sharpness", "noise", "blockiness"}


def test_without_sizes_the_embedded_flux_draws_small_pictures_in_twenty_steps(tmp_path: Path) -> None:
    assert run_command_line(["fluxgen", "--embedded", "--cpu", "--count", "2", "-o", str(tmp_path / "run")]) == 0
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert [settings[name] for name in ("width", "height", "steps", "guidance")] == [128, 96, 20, 4.0]
    assert [settings[name] for name in ("percentile", "scale", "shard_size", "seed")] == [5.0, 4, 1000, 0]


def test_prompts_are_taken_in_turn(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n\n  ein Fluß \n", encoding="utf-8")
    assert run_command_line(command(tmp_path / "run", "--prompts", tmp_path / "prompts.txt", count=3)) == 0
    assert [line["prompt"] for line in lines(tmp_path / "run/pool.jsonl")] == ["a cat", "ein Fluß", "a cat"]


def test_a_bad_request_says_so_and_begins_nothing(whole: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    for words, message in (
        (("--width", "70"), "the width is 70 pixels, expected a multiple of 16. Choose 64."),
        (("--metrics", "taste"), "'taste' is no measure."),
        (("--metrics", "psnr"), "psnr compare with a reference"),
        (("--prompts", tmp_path / "gone.txt"), "gone.txt: cannot be read"),
        (("--prompts", tmp_path / "empty.txt"), "empty.txt: holds no prompt."),
        (("--offload", "attic"), "attic"),
        (("--keep-percentile", "101"), "--keep-percentile"),
        (("--ray", "127.0.0.1:1"), "no Ray cluster can be reached"),
    ):
        code, out, err = kintsugi(*command(tmp_path / "run", *words), capsys=capsys)
        assert (code, out) == (2, "") and message in err.replace("\n", " "), words
        assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_gone_on_with_only_when_asked_and_only_as_it_was_begun(whole: Path, capsys: Captured) -> None:
    before = files_of(whole)
    code, _, err = kintsugi(*command(whole), capsys=capsys)
    assert code == 2 and f"{whole}: holds a run already. Add --resume" in err
    code, _, err = kintsugi(*command(whole, "--resume", "--guidance", 3, "--scale", 2), capsys=capsys)
    assert code == 2 and "guidance was 4.0, now 3.0; scale was 4, now 2" in err
    assert files_of(whole) == before


def test_a_run_goes_on_with_the_threads_it_was_begun_with(whole: Path) -> None:
    before = files_of(whole)
    (whole / "000001.tar").unlink()
    torch.set_num_threads(2)
    assert run_command_line(command(whole, "--resume")) == 0
    assert torch.get_num_threads() == 1
    assert files_of(whole) == before


def test_without_pyiqa_its_measures_exit_1_with_the_extra(tmp_path: Path, capsys: Captured) -> None:
    code, _, err = kintsugi(*command(tmp_path / "run", "--metrics", "pyiqa:musiq"), capsys=capsys)
    assert code == 1 and "kintsugi-restoration[iqa]" in err
    assert not (tmp_path / "run").exists()
