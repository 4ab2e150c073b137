from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from kintsugi.headless.node_registry import full_registry
from PIL import Image
from PIL.PngImagePlugin import PngInfo


@pytest.fixture(scope="module")
def trial() -> Iterator[ModuleType]:
    """tools/comfyui_comparison.py, which is a script beside the package, and finds others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
        yield importlib.import_module("comfyui_comparison")


def test_nodes_that_are_missing_or_told_otherwise_are_named(trial: ModuleType) -> None:
    ours = full_registry().object_info()
    theirs = {name: {**entry, "python_module": "custom_nodes.Kintsugi"} for name, entry in ours.items()}
    assert trial.node_differences(ours, theirs) == []
    theirs["KintsugiCompare"]["category"] = "elsewhere"
    del theirs["KintsugiEncode"]
    assert trial.node_differences(ours, theirs) == [
        "KintsugiEncode is not in ComfyUI.",
        "KintsugiCompare.category: 'image/restoration/quality', in ComfyUI 'elsewhere'",
    ]


def test_pictures_are_compared_by_name_and_by_pixels_alone(trial: ModuleType, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    metadata = PngInfo()
    metadata.add_text("prompt", "{}")
    for folder in (ours, theirs):
        folder.mkdir()
        Image.new("RGB", (4, 3), (10, 20, 30)).save(folder / "same.png", pnginfo=metadata if folder == ours else None)
        Image.new("RGB", (4, 3), (10, 20, 30 if folder == ours else 33)).save(folder / "other.png")
    assert trial.folder_differences(ours, theirs) == ["other.png: 12 values differ, by 3 at most"]
    (theirs / "other.png").rename(theirs / "another.png")
    assert trial.folder_differences(ours, theirs) == [
        "another.png was written by one side alone",
        "other.png was written by one side alone",
    ]


def test_nothing_written_is_a_difference(trial: ModuleType, tmp_path: Path) -> None:
    assert trial.folder_differences(tmp_path, tmp_path) == ["no side wrote a picture"]
