from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kintsugi.headless.node_registry import full_registry
from PIL import Image
from PIL.PngImagePlugin import PngInfo


@pytest.fixture(scope="module")
def trial() -> ModuleType:
    """tools/try_in_comfyui.py, which is a script beside the package."""
    spec = importlib.util.spec_from_file_location("try_in_comfyui", Path(__file__).parents[2] / "tools" / "try_in_comfyui.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["try_in_comfyui"] = module
    spec.loader.exec_module(module)
    return module


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
