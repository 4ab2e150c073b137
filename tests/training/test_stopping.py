"""Runs that end before their time: killed at any moment, asked to stop, or stopped by a loss that is no number."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import Interrupted, KintsugiError, RecipeError
from kintsugi.training import checkpoints, stopping
from kintsugi.training.recipe import Recipe
from kintsugi.training.stopping import StopRequest
from PIL import Image
from test_processes import ALONE, SCRIPT, assert_same_run, log, torchrun
from tiny_stage import draw_pictures, tiny_recipe, tiny_trainer, train_and_record

STEPS = 40
PATIENCE = 120.0


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(autouse=True)
def one_thread() -> object:
    """As the processes that tests start: sums over threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def long_recipe(pictures: Path) -> Recipe:
    return tiny_recipe(pictures, steps=STEPS, accumulate=2, data={"workers": 1})


def started(folder: Path, recipe: Recipe) -> subprocess.Popen[bytes]:
    content = json.dumps({"run": recipe.model_dump(mode="json")})
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), content], env=ALONE, start_new_session=True)


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (folder / "log.csv").exists() or len((folder / "log.csv").read_text().splitlines()) <= steps:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_killed_at_any_step_goes_on_to_the_same_losses_and_weights(pictures: Path, tmp_path: Path) -> None:
    recipe = long_recipe(pictures)
    train_and_record(recipe, tmp_path / "whole")
    process = started(tmp_path, recipe)
    wait_for_steps(tmp_path / "run", random.randrange(4, 12), process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(log(tmp_path / "run")) < STEPS
    train_and_record(recipe, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_killed_at_any_step_go_on_to_the_same_losses_and_weights(pictures: Path, tmp_path: Path) -> None:
    content = {"run": long_recipe(pictures).model_dump(mode="json")}
    process = torchrun(tmp_path, content)
    wait_for_steps(tmp_path / "run", random.randrange(4, 12), process)
    processes = [process.pid, *children(process.pid)]
    for each in processes:
        os.kill(each, signal.SIGKILL)
    process.wait()
    assert len(log(tmp_path / "run")) < STEPS
    assert torchrun(tmp_path, content, "--resume").wait(PATIENCE) == 0
    assert torchrun(tmp_path, {"whole": content["run"]}).wait(PATIENCE) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def children(process: int) -> list[int]:
    import psutil

    return [each.pid for each in psutil.Process(process).children(recursive=True)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_asked_to_stop_finishes_its_step_and_writes_a_checkpoint(number: signal.Signals, pictures: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(pictures, steps=20, checkpoint_every=10)
    train_and_record(recipe, tmp_path / "whole")
    trainer = tiny_trainer(recipe, tmp_path / "run")
    update = trainer._update

    def stopped(batches: object) -> dict[str, float]:
        if trainer.step == 6:
            os.kill(os.getpid(), number)
        return update(batches)  # type: ignore[arg-type]

    trainer._update = stopped  # type: ignore[method-assign, assignment]
    with pytest.raises(Interrupted):
        trainer.run()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000007"]
    assert len(log(tmp_path / "run")) == 7
    train_and_record(recipe, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_an_echo_of_the_signal_is_the_same_request_and_a_later_one_is_obeyed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        monkeypatch.setattr(stopping, "ECHO", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_stopped_command_exits_with_130_and_says_how_to_go_on(pictures: Path, tmp_path: Path) -> None:
    settings = "settings={channels: [16, 48, 48], latent_channels: 16, norm_groups: 4}"
    sets = [settings, "data.source=folder", f"data.folder={pictures}", "data.crop=16", "steps=1000", "batch=1", "precision=no"]
    options = [word for each in sets for word in ("--set", each)]
    command = [sys.executable, "-m", "kintsugi", "train", "mini-vae", "-o", str(tmp_path / "run"), "--cpu", *options]
    process = subprocess.Popen(command, env=ALONE, start_new_session=True, stderr=subprocess.PIPE)
    wait_for_steps(tmp_path / "run", 1, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"--resume" in told and b"Traceback" not in told
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1


def test_a_checkpoint_killed_half_way_leaves_the_one_before(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(pictures, steps=7)
    train_and_record(recipe, tmp_path / "whole")
    written = checkpoints.save_file

    def killed(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written(tensors, path)
        if "step-000006" in str(path) and path.stem == "auxiliary":
            raise SystemExit(137)

    monkeypatch.setattr(checkpoints, "save_file", killed)
    with pytest.raises(SystemExit):
        tiny_trainer(recipe, tmp_path / "run").run()
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [".step-000006.partial", "step-000003"]
    train_and_record(recipe, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_run_does_not_go_on_by_another_recipe_but_may_take_longer(pictures: Path, tmp_path: Path) -> None:
    train_and_record(tiny_recipe(pictures), tmp_path / "run")
    other = tiny_recipe(pictures, batch=3, steps=6)
    with pytest.raises(RecipeError, match=r"recipe: batch was 2 and is 3\. Take") as told:
        tiny_trainer(other, tmp_path / "run").run(resume=True)
    assert "steps" not in str(told.value)
    rates = tiny_recipe(pictures).model_dump(mode="json")
    rates["optimizers"]["student"]["learning_rate"] = 2e-3
    with pytest.raises(RecipeError, match=r"optimizers\.student\.learning_rate was 0\.001 and is 0\.002"):
        tiny_trainer(Recipe.model_validate(rates), tmp_path / "run").run(resume=True)
    tiny_trainer(tiny_recipe(pictures, steps=6, checkpoint_every=1, validate_every=1), tmp_path / "run").run(resume=True)
    assert len(log(tmp_path / "run")) == 6


def test_a_picture_that_makes_the_loss_no_number_stops_the_run_and_is_named(pictures: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(pictures, tmp_path / "pictures")
    Image.new("RGB", (20, 20), (90, 90, 90)).save(spoilt / "flat.png")
    weights = [{"until": 4, "weights": {"pixel": 1.0}}, {"until": 200, "weights": {"pixel": 1.0, "contrast": 1.0}}]
    recipe = tiny_recipe(spoilt, steps=200, batch=1, phases=weights)
    with pytest.raises(KintsugiError, match=r"contrast is (inf|nan)") as told:
        tiny_trainer(recipe, tmp_path / "run").run()
    assert "flat.png" in str(told.value)
    assert not any(f"{index}.png" in str(told.value) for index in range(4))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert f"The last checkpoint, {newest.name}, is kept" in str(told.value)
    (spoilt / "flat.png").unlink()
    resumed = tiny_trainer(recipe.model_copy(update={"steps": int(newest.name[5:]) + 3}), tmp_path / "run")
    resumed.run(resume=True)


@pytest.mark.slow
def test_a_picture_that_is_no_number_in_one_process_stops_both(pictures: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(pictures, tmp_path / "pictures")
    Image.new("RGB", (20, 20), (90, 90, 90)).save(spoilt / "flat.png")
    recipe = tiny_recipe(spoilt, steps=200, batch=1, phases=[{"until": 200, "weights": {"pixel": 1.0, "contrast": 1.0}}])
    process = torchrun(tmp_path, {"run": recipe.model_dump(mode="json")}, stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=PATIENCE)
    errors = [line for line in told.decode().splitlines() if "KintsugiError" in line and "contrast is" in line]
    assert process.returncode != 0
    assert len(errors) == 2
    for error in errors:
        assert "flat.png" in error and not any(f"{index}.png" in error for index in range(4))


def test_a_gradient_that_is_no_number_stops_the_run_before_its_checkpoint(pictures: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_recipe(pictures, phases=[{"until": 5, "weights": {"pixel": 1e38, "auxiliary": 1.0}}]), tmp_path / "run")
    with pytest.raises(KintsugiError, match=r"gradient of student is (inf|nan)"):
        trainer.run()
    assert not (tmp_path / "run" / "checkpoints").exists()
