"""The command line as a person meets it: words, exit codes, and that nothing half done is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kintsugi.headless.cli import app, run_command_line
from safetensors.torch import save_file
from tiny_workflow import pixels, write_picture, write_workflow
from typer.main import get_command

COMMANDS = ["restore", "run", "batch", "degrade", "score", "fluxgen", "nodes", "convert", "train", "models", "serve"]
MODELS_COMMANDS = ["models list", "models check", "models fetch"]
Captured = pytest.CaptureFixture[str]


def kintsugi(*arguments: object, capsys: Captured) -> tuple[int, str, str]:
    code = run_command_line([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def in_a_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kintsugi", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


HELP = """
import sys
from kintsugi.headless.cli import run_command_line
code = run_command_line(["--help"])
heavy = {"torch", "diffusers", "transformers", "numpy", "PIL", "kornia"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


def test_help_imports_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, *MODELS_COMMANDS])
def test_every_command_has_help_with_an_example(command: str, capsys: Captured) -> None:
    code, out, _ = kintsugi(*command.split(), "--help", capsys=capsys)
    assert code == 0
    assert f"Example: kintsugi {command.split()[0]}" in out


def test_the_commands_are_the_documented_ones() -> None:
    assert sorted(get_command(app).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [["nonsense"], ["restore"], ["restore", "a.png"], ["run", "--input"], ["models", "fetch"], []])
def test_an_impossible_command_line_exits_2(arguments: list[str], capsys: Captured) -> None:
    assert kintsugi(*arguments, capsys=capsys)[0] == 2


def test_a_mistake_gives_one_message_and_debug_its_traceback(tmp_path: Path, capsys: Captured) -> None:
    arguments = ("run", tmp_path / "gone.json", "-o", tmp_path / "out")
    code, out, err = kintsugi(*arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("kintsugi: ")
    assert "gone.json" in err
    assert "Traceback" not in err
    assert "Traceback" in kintsugi(*arguments, "--debug", capsys=capsys)[2]


def test_restoring_says_where_the_result_is_its_size_and_time(tmp_path: Path, capsys: Captured) -> None:
    photo, workflow = write_picture(tmp_path / "a.png"), write_workflow(tmp_path)
    code, out, err = kintsugi("restore", photo, "-o", tmp_path / "b.png", "--workflow", workflow, "--cpu", capsys=capsys)
    assert (code, err) == (0, "")
    assert f"{photo} -> {tmp_path / 'b.png'}  6 x 4  " in out
    assert out.rstrip().endswith(" s")


def test_a_restore_where_some_fail_exits_1_with_a_summary(tmp_path: Path, capsys: Captured) -> None:
    photos = [write_picture(tmp_path / "a.png"), tmp_path / "gone.png"]
    arguments = ("restore", *photos, "-o", f"{tmp_path}/out/", "--workflow", write_workflow(tmp_path), "--cpu")
    code, out, err = kintsugi(*arguments, capsys=capsys)
    assert code == 1
    assert out.splitlines()[-1] == "1 restored, 1 failed."
    assert err.startswith(f"kintsugi: {tmp_path}/gone.png: ")
    code, out, _ = kintsugi(*arguments, "--json", "--overwrite", capsys=capsys)
    assert [entry["error"] is None for entry in json.loads(out)] == [True, False]


def test_a_result_that_exists_exits_2(tmp_path: Path, capsys: Captured) -> None:
    photo = write_picture(tmp_path / "a.png")
    code, _, err = kintsugi("restore", photo, "-o", photo, "--workflow", write_workflow(tmp_path), "--cpu", capsys=capsys)
    assert code == 2
    assert "--overwrite" in err


def test_run_prints_the_prompt_it_would_execute(tmp_path: Path, capsys: Captured) -> None:
    photo, workflow = write_picture(tmp_path / "a.png"), write_workflow(tmp_path)
    arguments = ("--input", f"Photo={photo}", "--set", "Shrink it.scale_by=0.25", "--print-prompt")
    code, out, _ = kintsugi("run", workflow, *arguments, capsys=capsys)
    assert code == 0
    prompt = json.loads(out)
    assert (prompt["1"]["inputs"]["image"], prompt["2"]["inputs"]["scale_by"]) == ("a.png", 0.25)
    assert not (tmp_path / "out").exists()


def test_run_reads_its_pictures_from_the_input_directory(tmp_path: Path, capsys: Captured) -> None:
    write_picture(tmp_path / "pictures/any.png")
    arguments = ("--input-directory", tmp_path / "pictures", "-o", tmp_path / "out", "--json")
    code, out, _ = kintsugi("run", write_workflow(tmp_path), *arguments, capsys=capsys)
    assert code == 0
    assert json.loads(out)["files"] == [str(tmp_path / "out/small_00001_.png")]


def test_run_without_a_folder_for_results_says_so(tmp_path: Path, capsys: Captured) -> None:
    code, _, err = kintsugi("run", write_workflow(tmp_path), capsys=capsys)
    assert code == 2
    assert "-o OUT_DIR" in err


def test_unknown_devices_and_dtypes_are_named(tmp_path: Path, capsys: Captured) -> None:
    for option, value in (("--device", "abacus"), ("--dtype", "fp3"), ("--device", "cuda:99")):
        code, _, err = kintsugi("run", write_workflow(tmp_path), "-o", tmp_path, option, value, capsys=capsys)
        assert code == 2
        assert value in err


def test_batch_sums_up_and_resumes(tmp_path: Path, capsys: Captured) -> None:
    write_picture(tmp_path / "in/a.png")
    (tmp_path / "in/bad.png").write_text("no picture")
    arguments = ("batch", write_workflow(tmp_path), tmp_path / "in", tmp_path / "out", "--cpu")
    code, out, err = kintsugi(*arguments, capsys=capsys)
    assert (code, out.splitlines()[-1]) == (1, "1 restored, 0 kept, 1 failed, 0 other files passed over.")
    assert "bad.png" in err
    write_picture(tmp_path / "in/bad.png")
    code, out, _ = kintsugi(*arguments, "--resume", capsys=capsys)
    assert (code, out.splitlines()[-1]) == (0, "1 restored, 1 kept, 0 failed, 0 other files passed over.")


def test_degraded_pictures_are_scored_against_their_originals(tmp_path: Path, capsys: Captured) -> None:
    photo = write_picture(tmp_path / "a.png", 64, 48)
    code, out, _ = kintsugi("degrade", photo, "-o", tmp_path / "low.png", "--preset", "bicubic", "--scale", "2", "--cpu", capsys=capsys)
    assert (code, pixels(tmp_path / "low.png").shape) == (0, (24, 32, 3))
    assert str(tmp_path / "low.png") in out
    code, out, _ = kintsugi("score", photo, "--reference", photo, "--metrics", "ssim", "--json", "--cpu", capsys=capsys)
    assert code == 0
    assert json.loads(out)["pictures"][0]["scores"]["ssim"] == pytest.approx(1)
    code, _, err = kintsugi("score", tmp_path / "gone.png", "--cpu", capsys=capsys)
    assert code == 2
    assert "gone.png" in err


def test_nodes_are_listed_for_people_and_for_programs(capsys: Captured) -> None:
    assert "KintsugiLoadPhoto" in kintsugi("nodes", capsys=capsys)[1]
    info = json.loads(kintsugi("nodes", "--json", capsys=capsys)[1])
    assert {"LoadImage", "KintsugiSavePhoto"} <= set(info)
    assert info["KintsugiLoadPhoto"]["input"]["required"]["image"][1]["image_upload"] is True


def test_models_check_reads_every_header_and_names_the_damaged(tmp_path: Path, capsys: Captured) -> None:
    for name in ("good", "half"):
        (tmp_path / "vae").mkdir(exist_ok=True)
        save_file({"w": torch.zeros(10, 10)}, tmp_path / f"vae/{name}.safetensors")
    (tmp_path / "vae/old.ckpt").touch()
    code, out, _ = kintsugi("models", "check", "--models-directory", tmp_path, capsys=capsys)
    assert code == 0
    half = tmp_path / "vae/half.safetensors"
    half.write_bytes(half.read_bytes()[:-8])
    code, out, err = kintsugi("models", "check", "--models-directory", tmp_path, capsys=capsys)
    assert code == 1
    assert "good.safetensors" in out
    assert "kintsugi convert old.ckpt old.safetensors" in out
    assert "half.safetensors: is not a whole safetensors file" in err


def test_models_are_listed_with_what_is_here(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "checkpoints").mkdir()
    save_file({"w": torch.zeros(1)}, tmp_path / "checkpoints/sd_xl_base_1.0.safetensors")
    code, out, _ = kintsugi("models", "list", "--models-directory", tmp_path, capsys=capsys)
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("sdxl ")).split()[1] == "1/9"


def test_fetching_without_a_network_exits_1(tmp_path: Path, capsys: Captured) -> None:
    code, _, err = kintsugi("models", "fetch", "instantir", "--models-directory", tmp_path, capsys=capsys)
    assert code == 1
    assert "InstantX/InstantIR: cannot be fetched" in err
    assert "Traceback" not in err


def test_a_pickle_is_converted(tmp_path: Path, capsys: Captured) -> None:
    torch.save({"w": torch.zeros(250, 10)}, tmp_path / "a.pt")
    code, out, _ = kintsugi("convert", tmp_path / "a.pt", tmp_path / "a.safetensors", capsys=capsys)
    assert (code, out) == (0, f"{tmp_path / 'a.safetensors'}  1 tensors  10.0 kB\n")
    assert kintsugi("convert", tmp_path / "a.pt", tmp_path / "a.safetensors", capsys=capsys)[0] == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = in_a_process("nodes", "--json")
    assert process.stdout and process.stderr
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.wait(30)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_batch_leaves_nothing_half_and_resumes(tmp_path: Path, capsys: Captured, ending: int, code: int) -> None:
    for index in range(120):
        write_picture(tmp_path / f"in/{index:03}.png", 200, 200, seed=index % 3)
    arguments = ("batch", write_workflow(tmp_path), tmp_path / "in", tmp_path / "out", "--cpu")
    process = in_a_process(*arguments)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(ending)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    if ending == signal.SIGINT:
        assert err == "kintsugi: stopped; finished results are kept.\n"
        assert not list(tmp_path.glob("out/.kintsugi-*"))
    finished = list(tmp_path.glob("out/*.png"))
    assert 0 < len(finished) < 120
    assert all(pixels(path).shape == (100, 100, 3) for path in finished)
    assert kintsugi(*arguments, "--resume", capsys=capsys)[0] == 0
    assert len(list(tmp_path.glob("out/*.png"))) == len((tmp_path / "out/manifest.jsonl").read_text().splitlines()) == 120
    assert not list(tmp_path.glob("out/.kintsugi-*"))


def test_a_dry_run_tells_what_would_be_trained_and_trains_nothing(tmp_path: Path, capsys: Captured) -> None:
    code, out, _ = kintsugi("train", "mini-vae", "-o", tmp_path / "run", "--set", "steps=7", "--dry-run", capsys=capsys)
    assert code == 0
    assert "Batch: 8 (8 x 1 accumulated x 1 processes). Steps: 7. Pictures: 56." in out.splitlines()
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_programs_the_same(capsys: Captured) -> None:
    found = json.loads(kintsugi("train", "mini-vae", "--dry-run", "--json", capsys=capsys)[1])
    trained = found["trainable"]["vae"]
    assert trained == sum(network["trainable"] for network in found["networks"])
    assert found["memory"][0]["total"] == 20 * trained, "weights, gradients, two states of AdamW, averaged weights"
    assert found["recipe"]["stage"] == "mini-vae"
    assert "activations" in found["not_counted"]


@pytest.mark.parametrize(
    "change",
    ["stops=7", "steps", "stage.name=x", "steps=[", "data.degradation=mils", "phases=[{until: 9, weights: {pixles: 1}}]", "stage=none"],
)
def test_a_recipe_that_cannot_be_trained_exits_2(change: str, capsys: Captured) -> None:
    code, _, err = kintsugi("train", "mini-vae", "--set", change, "--dry-run", capsys=capsys)
    assert code == 2
    assert err.startswith("kintsugi: ")
    assert "Traceback" not in err


def test_training_asks_for_a_folder(capsys: Captured) -> None:
    code, _, err = kintsugi("train", "mini-vae", capsys=capsys)
    assert code == 2
    assert "-o RUN_DIR" in err


def test_a_name_that_the_terminal_cannot_show_is_no_error(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / os.fsdecode(b"caf\xe9.png"))
    arguments = ("restore", photo, "-o", tmp_path / "b.png", "--workflow", write_workflow(tmp_path), "--cpu")
    process = in_a_process(*arguments)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "caf" in out
