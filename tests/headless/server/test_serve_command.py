"""`kintsugi serve` as a person starts and ends it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from kintsugi.headless.cli import BAD_REQUEST, FAILED, run_command_line


def test_it_tells_its_address_answers_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    command = [
        sys.executable,
        "-m",
        "kintsugi",
        "serve",
        "--port",
        "0",
        "--cpu",
        "--base-directory",
        str(base),
        "--disable-auto-launch",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        try:
            assert address is not None
            with urllib.request.urlopen(f"{address[0]}api/users") as answer:
                assert json.load(answer)["storage"] == "server"
        finally:
            process.send_signal(signal.SIGINT)
            left, complaints = process.communicate()
    assert (process.returncode, left, complaints) == (0, "", "")
    assert sorted(path.name for path in base.iterdir()) == ["input", "output", "user"]


@pytest.mark.parametrize("listen", ["0.0.0.0", "127.0.0.1,::", ""])
def test_others_are_not_let_in_by_mistake(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["serve", "--listen", listen, "--disable-auto-launch"]) == BAD_REQUEST
    assert "--token" in capsys.readouterr().err


def test_an_address_of_another_machine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = ["--listen", "192.0.2.1", "--token", "word", "--base-directory", str(tmp_path)]
    assert run_command_line(["serve", *elsewhere, "--cpu", "--disable-auto-launch"]) == BAD_REQUEST
    assert "192.0.2.1:8188" in capsys.readouterr().err


def test_a_missing_package_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert run_command_line(["serve"]) == FAILED
    assert "pip install 'kintsugi-restoration[server]'" in capsys.readouterr().err
