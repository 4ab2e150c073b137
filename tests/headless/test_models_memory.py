"""`kintsugi models check` tells what the one-step methods hold in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kintsugi.headless.cli import run_command_line


def checked(models: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert run_command_line(["models", "check", "--models-directory", str(models), *options]) == 0
    return capsys.readouterr().out


def test_each_method_has_a_line_for_its_full_size_and_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = checked(tmp_path, capsys).splitlines()
    full = next(line for line in lines if line.startswith("tsd-sr") and "full size" in line)
    assert full.split()[-1] == "39%" and "4.4 GB" in full and "2.7 GB" in full
    assert any(line.startswith("gendr") and "embedded" in line for line in lines)


def test_programs_get_the_same_in_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = json.loads(checked(tmp_path, capsys, "--json"))["memory"]
    gendr = next(entry for entry in memory if (entry["method"], entry["weights"]) == ("gendr", "full size"))
    assert gendr["dtype"] == "F16" and 0.9 < gendr["as_we_run_it"] / gendr["as_published"] < 0.95
