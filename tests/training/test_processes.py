"""Several processes train as one does that accumulates as much more, however they share the networks."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from kintsugi.training.recipe import Recipe
from safetensors.torch import load_file
from tiny_stage import OPTIMIZER, draw_pictures, one_turn, tiny_recipe, train_and_record

SCRIPT = Path(__file__).with_name("tiny_stage.py")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
# DeepSpeed is an extra that builds itself; where it is installed, it is held to the same.
SHARDINGS = ["none", "fsdp", *(["zero2"] if find_spec("deepspeed") else [])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that accumulates twice as much."""
    folder = tmp_path_factory.mktemp("alone")
    for name, recipe in recipes(draw_pictures(folder / "pictures"), accumulate=4).items():
        train_and_record(Recipe.model_validate(recipe), folder / name)
    return folder


def recipes(pictures: Path, **changes: Any) -> dict[str, Any]:
    turns = tiny_recipe(pictures, **changes).model_dump(mode="json")
    return {"one": one_turn(turns), "two": turns}


def torchrun(folder: Path, content: dict[str, Any], *options: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT), str(folder)]
    return subprocess.Popen([*command, json.dumps(content), *options], env=ALONE, start_new_session=True, stderr=stderr)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_processes_train_as_one_that_accumulates_twice_as_much(sharding: str, alone: Path, tmp_path: Path) -> None:
    content = recipes(alone / "pictures", accumulate=2, sharding=sharding)
    resumed = {f"{name}-again": recipe for name, recipe in content.items()}
    assert torchrun(tmp_path, content).wait(timeout=150) == 0
    for name in content:
        assert_same_training(tmp_path / name, alone / name)
        shutil.copytree(tmp_path / name / "checkpoints" / "step-000003", tmp_path / f"{name}-again" / "checkpoints" / "step-000003")
        shutil.copy(tmp_path / name / "log.csv", tmp_path / f"{name}-again" / "log.csv")
    assert torchrun(tmp_path, resumed, "--resume").wait(timeout=150) == 0
    for name in content:
        assert_same_run(tmp_path / f"{name}-again", tmp_path / name)


def assert_same_training(found: Path, expected: Path) -> None:
    gradients, others = load_file(found / "gradients.safetensors"), load_file(expected / "gradients.safetensors")
    assert {name for name in others if others[name].any()} == {name for name in gradients if gradients[name].any()}
    for name, gradient in others.items():
        if gradient.any():
            assert (gradients[name] - gradient).norm() <= 1e-6 * gradient.norm(), name
    last, other = load_file(found / "last.safetensors"), load_file(expected / "last.safetensors")
    assert last.keys() == other.keys()
    for name, weights in other.items():
        assert float((last[name] - weights).abs().max()) <= 0.2 * OPTIMIZER["learning_rate"], name
    for row, expected_row in zip(log(found), log(expected), strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5)


def assert_same_run(found: Path, expected: Path) -> None:
    """To the bit."""
    assert log(found) == log(expected)
    exported = sorted((expected / "export").glob("*.safetensors"))
    assert exported
    for path in exported:
        assert (found / "export" / path.name).read_bytes() == path.read_bytes()


def log(folder: Path) -> list[dict[str, float]]:
    with (folder / "log.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
