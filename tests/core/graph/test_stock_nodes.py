"""The stock nodes give ComfyUI's pixels, file names and words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.documents import read_workflow
from kintsugi.core.graph.executor import ExecutionResult, Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.stock_images import LoadImage, SaveImage
from kintsugi.core.graph.validation import validate
from kintsugi.core.runtime import LocalHost
from PIL import Image

STOCK = Path(__file__).parents[2] / "golden" / "comfyui" / "stock"
PROMPTS = sorted((STOCK / "prompts").iterdir())


@pytest.fixture
def registry() -> Registry:
    return Registry(stock_nodes.NODE_CLASS_MAPPINGS, stock_nodes.NODE_DISPLAY_NAME_MAPPINGS)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As when the pictures were recorded: on one thread torch's bilinear rounds some last bits otherwise."""
    count = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(count)


@pytest.fixture
def pictures(host: LocalHost) -> LocalHost:
    shutil.copytree(STOCK / "in", host.folders.input, dirs_exist_ok=True)
    return host


def run(prompt: dict[str, Any], registry: Registry, **extra_data: Any) -> ExecutionResult:
    checked = validate(prompt, registry)
    assert checked.error is None, checked.node_errors
    return Executor(registry).run(prompt, checked.outputs, extra_data=extra_data)


@pytest.mark.parametrize("path", PROMPTS, ids=[path.stem for path in PROMPTS])
def test_prompt_gives_the_recorded_pixels_and_names(path: Path, registry: Registry, pictures: LocalHost) -> None:
    result = run(json.loads(path.read_text()), registry)
    names = [image["filename"] for ui in result.ui.values() for image in ui["images"]]
    mask = [name.replace("load_", "mask_", 1) for name in names if name.startswith("load_")]
    expected = sorted(file.name for file in (STOCK / "out").iterdir() if file.name.startswith(path.stem + "_0") or file.name in mask)
    assert result.status == "success" and sorted(names) == expected and expected
    for name in names:
        with Image.open(STOCK / "out" / name) as recorded, Image.open(pictures.folders.output / name) as ours:
            assert ours.mode == recorded.mode and np.array_equal(np.array(ours), np.array(recorded)), name


def test_every_recorded_picture_is_made_by_some_prompt() -> None:
    stems = {path.stem for path in PROMPTS} | {path.stem.replace("load_", "mask_", 1) for path in PROMPTS}
    assert {file.name.rsplit("_", 2)[0] for file in (STOCK / "out").iterdir()} == stems


def test_saved_picture_carries_prompt_and_extra_data(registry: Registry, pictures: LocalHost) -> None:
    prompt = json.loads((STOCK / "prompts" / "invert.json").read_text())
    result = run(prompt, registry, extra_pnginfo={"workflow": {"nodes": []}, "note": "ä"})
    path = pictures.folders.output / result.ui["3"]["images"][0]["filename"]
    document = read_workflow(path)
    assert document.prompt == prompt and document.workflow == {"nodes": []}
    with Image.open(path) as saved:
        assert json.loads(saved.info["note"]) == "ä"


def test_same_prompt_twice_writes_the_same_bytes(registry: Registry, pictures: LocalHost) -> None:
    prompt = json.loads((STOCK / "prompts" / "invert.json").read_text())
    files = []
    for _ in range(2):
        image = run(prompt, registry).ui["3"]["images"][0]
        path = pictures.folders.output / image["filename"]
        files.append(path.read_bytes())
        path.unlink()
    assert files[0] == files[1]


def test_missing_picture_is_refused_with_its_name(registry: Registry) -> None:
    prompt = {"1": {"class_type": "LoadImage", "inputs": {"image": "no.png"}}, "2": saving(["1", 0])}
    fault = validate(prompt, registry).node_errors["1"]["errors"][0]
    assert fault["type"] == "custom_validation_failed" and "Invalid image file: no.png" in fault["details"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a\0b.png"])
def test_picture_outside_the_input_folder_is_refused(name: str, host: LocalHost) -> None:
    (host.folders.input.parent / "secret.png").touch()
    assert LoadImage.VALIDATE_INPUTS(name) == f"Invalid image file: {name}"


def test_annotated_name_loads_from_the_output_folder(registry: Registry, pictures: LocalHost) -> None:
    shutil.copy(STOCK / "in" / "rgb.png", pictures.folders.output / "kept.png")
    assert LoadImage.VALIDATE_INPUTS("kept.png [output]") is True
    assert torch.equal(LoadImage().load_image("kept.png [output]")[0], LoadImage().load_image("rgb.png")[0])


def test_granted_file_loads_from_anywhere(host: LocalHost) -> None:
    host.folders.granted["photo"] = STOCK / "in" / "rgb.png"
    assert LoadImage().load_image("photo")[0].shape == (1, 37, 53, 3)


def test_changed_file_is_loaded_again_and_an_unchanged_one_is_not(registry: Registry, pictures: LocalHost) -> None:
    prompt = {"1": {"class_type": "LoadImage", "inputs": {"image": "rgb.png"}}, "2": saving(["1", 0])}
    executor = Executor(registry)
    first, again = (executor.run(prompt, keep=["1"]).values["1"][0][0] for _ in range(2))
    shutil.copy(STOCK / "in" / "grey.png", pictures.folders.input / "rgb.png")
    changed = executor.run(prompt, keep=["1"]).values["1"][0][0]
    assert first is again and changed.shape != first.shape


def test_frames_of_equal_size_become_a_batch(host: LocalHost) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    frames[0].save(host.folders.input / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    pictures, masks = LoadImage().load_image("a.webp")
    assert pictures.shape == (3, 4, 6, 3) and masks.shape[0] == 3
    assert pictures[:, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_truncated_file_is_a_picture_error(registry: Registry, pictures: LocalHost) -> None:
    content = (STOCK / "in" / "rgb.png").read_bytes()
    (pictures.folders.input / "cut.png").write_bytes(content[: len(content) // 2])
    result = run({"1": {"class_type": "LoadImage", "inputs": {"image": "cut.png"}}, "2": saving(["1", 0])}, registry)
    assert result.error is not None and "cut.png" in result.error.message and "cannot be read" in result.error.message


def test_preview_goes_to_the_temp_folder_under_a_random_name(registry: Registry, pictures: LocalHost) -> None:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "rgb.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    image = run(prompt, registry).ui["2"]["images"][0]
    assert image["type"] == "temp" and (pictures.folders.temp / image["filename"]).is_file()
    stem, letters, counter, _ = image["filename"].rsplit("_", 3)
    assert stem == "ComfyUI_temp" and len(letters) == 5 and counter == "00001"


def test_saving_into_a_subfolder_tells_it(host: LocalHost) -> None:
    shown = SaveImage().save_images(torch.zeros(2, 4, 6, 3), "a/b/%width%x%height%")["ui"]["images"]
    assert shown[1] == {"filename": "6x4_00002_.png", "subfolder": "a/b", "type": "output"}


def test_picture_with_nan_is_refused_and_nothing_is_written(host: LocalHost) -> None:
    with pytest.raises(Exception, match="NaN"):
        SaveImage().save_images(torch.full((1, 4, 4, 3), float("nan")), "bad")
    assert list(host.folders.output.iterdir()) == []


def test_display_names_are_comfyuis() -> None:
    names = stock_nodes.NODE_DISPLAY_NAME_MAPPINGS
    assert names["ImageScale"] == "Upscale Image" and names["MaskToImage"] == "Convert Mask to Image" and len(names) == 13


@pytest.mark.parametrize(("kind", "value"), [("Int", 3), ("Float", 0.5), ("String", "a"), ("StringMultiline", "a\nb"), ("Boolean", True)])
def test_primitive_gives_its_value(kind: str, value: Any) -> None:
    assert stock_nodes.NODE_CLASS_MAPPINGS[f"Primitive{kind}"]().give(value) == (value,)


def saving(link: list[Any]) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": link, "filename_prefix": "x"}}
