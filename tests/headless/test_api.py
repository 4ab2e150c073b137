"""Kintsugi from Python: the same pixels as the command line, the kinds of pictures, what stays loaded, and the documented examples."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kintsugi
import numpy as np
import pytest
import torch
from kintsugi.core.errors import KintsugiError
from kintsugi.core.imaging.reading import read_photo
from kintsugi.headless.api import METHODS, unload_models
from kintsugi.headless.cli import run_command_line
from kintsugi.nodes import one_step
from PIL import Image, ImageCms
from tiny_workflow import SHRINK, pixels, write_picture, write_workflow

ROOT = Path(__file__).parent.parent.parent
# What makes the methods that sample quick here.
FEW_STEPS: dict[str, dict[str, Any]] = {"instantir": {"Sample.steps": 1}, "fluxir": {"Sample.steps": 1}}
COPY: dict[str, Any] = {
    "1": {"class_type": "KintsugiLoadPhoto", "inputs": {"image": "any.png"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "KintsugiSavePhoto",
        "inputs": {
            "images": ["1", 0],
            "photo": ["1", 2],
            "mask": ["1", 1],
            "filename_prefix": "copy",
            "format": "same as source",
            "bit_depth": "same as source",
            "quality": 95,
            "keep_metadata": True,
        },
    },
}

NO_PICTURE: Any = np.zeros((4, 4, 3))


@pytest.fixture(autouse=True)
def small_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No published weights are found; nothing stays loaded for the next test."""
    monkeypatch.setenv("KINTSUGI_MODELS", str(tmp_path / "models"))
    yield
    unload_models()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "photo.png", 64, 48)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every method that is loaded, as it is."""
    loaded = []
    load = one_step.load_generator

    def noted(method: str, *rest: Any) -> Any:
        loaded.append(method)
        return load(method, *rest)

    monkeypatch.setattr(one_step, "load_generator", noted)
    return loaded


def levels(picture: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.rint(picture.numpy() * np.float32(255)).astype(np.uint8)


def tensor_of(photo: Path) -> torch.Tensor:
    return read_photo(photo).picture


def drawn_tensor(count: int = 1, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(0))


IMPORT = """
import sys
import kintsugi
heavy = {"torch", "numpy", "PIL", "diffusers", "transformers", "typer"} & set(sys.modules)
assert not heavy, heavy
assert {"run", "restore", "unload_models"} <= set(kintsugi.__all__)
assert callable(kintsugi.restore) and "torch" in sys.modules and "diffusers" not in sys.modules
"""


def test_importing_kintsugi_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", list(METHODS))
def test_restoring_gives_the_pixels_of_the_command_line(tmp_path: Path, photo: Path, method: str) -> None:
    overrides = FEW_STEPS.get(method, {})
    sets = [f"--set={place}={value}" for place, value in {METHODS[method].scale: 2, **overrides}.items()]
    command = ["restore", str(photo), "-o", str(tmp_path / "out.png"), "--workflow", METHODS[method].workflow, "--seed", "3", "--cpu"]
    assert run_command_line([*command, "--embedded", *sets]) == 0
    options = {"scale": 2, "seed": 3, "overrides": overrides, "embedded": True, "device": "cpu"}
    from_tensor = kintsugi.restore(tensor_of(photo), method, **options)
    from_path = kintsugi.restore(photo, method, **options)
    assert from_tensor.shape == (1, 96, 128, 3) and from_tensor.dtype == torch.float32
    assert np.array_equal(levels(from_tensor[0]), pixels(tmp_path / "out.png"))
    assert np.array_equal(np.asarray(from_path), pixels(tmp_path / "out.png"))


def test_a_path_and_a_picture_of_pillow_give_the_same(photo: Path) -> None:
    with Image.open(photo) as image:
        restored = kintsugi.restore(image)
    assert isinstance(restored, Image.Image)
    assert np.array_equal(np.asarray(restored), np.asarray(kintsugi.restore(str(photo))))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pillow_keeps_what_save_photo_keeps(tmp_path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    samples = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    Image.fromarray(samples).convert(mode).save(tmp_path / "a.png", exif=exif)
    for given in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        result = kintsugi.run(COPY, given, output=tmp_path / "out")
        (copied,), (file,) = result.pictures, result.files
        with Image.open(file) as written:
            assert copied.mode == written.mode == mode
            assert np.array_equal(np.asarray(copied), np.asarray(written))
            assert dict(copied.getexif()) == dict(written.getexif()) == dict(exif) | {0x0112: 1}


def test_a_batch_uses_seed_plus_i(photo: Path) -> None:
    batch = torch.cat([tensor_of(photo), tensor_of(photo).flip(1)])
    restored = kintsugi.restore(batch, "tsd-sr", seed=5, device="cpu")
    alone = [kintsugi.restore(batch[index : index + 1], "tsd-sr", seed=5 + index, device="cpu") for index in range(2)]
    assert torch.equal(restored, torch.cat(alone))


def test_a_tensor_comes_back_unrounded_and_is_the_callers_own() -> None:
    given = drawn_tensor()
    first = kintsugi.run(COPY, given).pictures[0]
    assert torch.equal(first, given)
    first.mul_(0).requires_grad_().sum().backward()
    assert torch.equal(kintsugi.run(COPY, given).pictures[0], given) and given.max() > 0


def test_the_models_are_loaded_once_whatever_picture_seed_or_scale(photo: Path, loads: list[str]) -> None:
    kintsugi.restore(photo)
    kintsugi.restore(tensor_of(photo), seed=1)
    kintsugi.restore(drawn_tensor(), scale=2, overrides={"Restore.tile": 256})
    assert loads == ["gendr"]
    unload_models()
    kintsugi.restore(photo)
    assert loads == ["gendr", "gendr"]


def test_another_workflow_takes_the_place_of_the_last(photo: Path, loads: list[str]) -> None:
    kintsugi.restore(photo)
    kintsugi.restore(photo, "tsd-sr")
    kintsugi.restore(photo)
    assert loads == ["gendr", "tsd-sr", "gendr"]


def test_nothing_is_written_that_stays(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    compared = kintsugi.run("degrade_and_score", photo)
    assert sorted(tmp_path.rglob("*")) == before
    assert compared.files == [] and [picture.size for picture in compared.pictures] == [(128, 48)]
    assert list(compared.texts) == ["Score of the damaged photo", "Score of the restored photo"]
    assert set(compared.metrics["Score of the damaged photo"]) == {"psnr", "ssim"}


def test_every_run_with_a_folder_writes_its_files(tmp_path: Path, photo: Path) -> None:
    workflow = write_workflow(tmp_path)
    names = [kintsugi.run(workflow, {"Photo": photo}, output=tmp_path / f"out{number}").files for number in (1, 2, 2)]
    assert [[file.relative_to(tmp_path).as_posix() for file in files] for files in names] == [
        ["out1/small_00001_.png"],
        ["out2/small_00001_.png"],
        ["out2/small_00002_.png"],
    ]
    assert len({file.read_bytes() for files in names for file in files}) == 1


def test_overrides_are_numbers_switches_and_words(photo: Path) -> None:
    overrides: dict[str, Any] = {"Shrink it.scale_by": 0.25, "2.upscale_method": "area"}
    assert kintsugi.run(SHRINK, photo, overrides).pictures[0].size == (16, 12)
    image = Image.new("RGB", (8, 8))
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for keep in (True, False):
        assert ("icc_profile" in kintsugi.run(COPY, image, {"2.keep_metadata": keep}).pictures[0].info) == keep


def test_the_workflow_may_be_in_a_picture_or_in_the_editors_form(tmp_path: Path, photo: Path) -> None:
    made = kintsugi.run(SHRINK, photo, {"2.scale_by": 0.25}, output=tmp_path / "out").files[0]
    assert kintsugi.run(made, photo).pictures[0].size == (16, 12)
    editors = json.loads((ROOT / "workflows/restore_photo.json").read_text(encoding="utf-8"))
    assert kintsugi.run(editors, photo).pictures[0].size == (64, 48)


def test_two_loading_nodes_get_their_own_pictures() -> None:
    prompt = {**COPY, "3": COPY["1"], "4": {**COPY["2"], "inputs": {**COPY["2"]["inputs"], "images": ["3", 0]}}}
    first, second = drawn_tensor(), drawn_tensor(2, 8, 8)
    given: dict[str, Any] = {"1": first, "3": second}
    pictures = kintsugi.run(prompt, given).pictures
    assert [torch.equal(*pair) for pair in zip(pictures, (first, second), strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kintsugi.restore("gone.png"), "gone.png"),
        (lambda: kintsugi.restore(drawn_tensor(), "magic"), "gendr, tsd-sr, instarevive, instantir, fluxir"),
        (lambda: kintsugi.restore(drawn_tensor() * 255), "Divide by 255"),
        (lambda: kintsugi.restore(drawn_tensor() / 0), "not finite"),
        (lambda: kintsugi.restore(drawn_tensor().movedim(3, 1)), r"expected \[B, H, W, 3\]"),
        (lambda: kintsugi.restore(NO_PICTURE), "ndarray is no picture"),
        (lambda: kintsugi.restore(drawn_tensor(), device="moon"), "no device 'moon'"),
        (lambda: kintsugi.restore(drawn_tensor(), overrides={"Restore.magic": 1}), "no widget 'magic'"),
        (lambda: kintsugi.restore(drawn_tensor(), overrides={"Restore.tile": "x"}), "is no INT"),
        (lambda: kintsugi.restore(drawn_tensor(), scale=99), "bigger|above"),
        (lambda: kintsugi.run("nonsense"), "no such workflow"),
        (lambda: kintsugi.run({}), "neither a workflow"),
        (lambda: kintsugi.run(SHRINK, {"Shrink it": drawn_tensor()}), "loads no picture"),
        (lambda: kintsugi.run(SHRINK), "any.png"),
    ],
)
def test_a_mistake_is_told(call: Any, words: str) -> None:
    with pytest.raises(KintsugiError, match=words):
        call()


def test_calls_from_threads_give_each_its_own(loads: list[str]) -> None:
    batch = drawn_tensor(4)
    restored: dict[int, torch.Tensor] = {}

    def restore(index: int) -> None:
        restored[index] = kintsugi.restore(batch[index : index + 1], device="cpu")

    threads = [threading.Thread(target=restore, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.cat([restored[index] for index in range(4)]), kintsugi.restore(batch, device="cpu"))
    assert loads == ["gendr"]


def test_it_works_where_an_event_loop_runs() -> None:
    async def cell() -> torch.Tensor:
        return kintsugi.run(COPY, drawn_tensor()).pictures[0]

    assert torch.equal(asyncio.run(cell()), drawn_tensor())


def test_ctrl_c_raises_and_the_next_call_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(one_step, "restore", pressed)
        kintsugi.restore(drawn_tensor())
    assert kintsugi.restore(drawn_tensor()).shape == (1, 16, 24, 3)


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("example", "made"), [*zip(EXAMPLES, ("restored.png", "compared.png", "restored older.jpg.png"), strict=True)])
def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str, made: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old.jpg", "older.jpg"):
        write_picture(tmp_path / name, 64, 48)
    exec(compile(example, "docs/python.md", "exec"), {})
    assert pixels(tmp_path / made).ndim == 3
