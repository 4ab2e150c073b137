"""The pack imported as ComfyUI imports it: by file location, under a folder name that is no Python name, not as `kintsugi`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

IMPORT = """
import importlib.util, json, os, sys, time
import torch, numpy, PIL.Image
sys.modules["kintsugi"] = None
before = set(sys.modules)
folder = sys.argv[1]
name = folder.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
started = time.perf_counter()
spec.loader.exec_module(module)
classes = module.NODE_CLASS_MAPPINGS
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": seconds,
    "loaded": sorted({loaded.partition(".")[0] for loaded in set(sys.modules) - before}),
    "nodes": sorted(classes),
    "titles": module.NODE_DISPLAY_NAME_MAPPINGS,
    "tooltips_missing": [
        [node, key] for node, cls in classes.items()
        for section in ("required", "optional") for key, spec in cls.INPUT_TYPES().get(section, {}).items()
        if not spec[1].get("tooltip")
    ],
    "functions": all(callable(getattr(cls, cls.FUNCTION)) for cls in classes.values()),
    "web": module.WEB_DIRECTORY,
}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("custom.nodes") / "kintsugi-main (1.0)"
    folder.symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run([sys.executable, "-c", IMPORT, str(folder)], capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_importing_the_pack_loads_no_model_library(imported: dict[str, Any]) -> None:
    assert not {"diffusers", "transformers", "kornia", "scipy", "accelerate", "peft", "typer"} & set(imported["loaded"])


def test_every_node_has_our_prefix_a_title_and_a_function(imported: dict[str, Any]) -> None:
    assert imported["nodes"]
    assert all(node.startswith("Kintsugi") for node in imported["nodes"])
    assert sorted(imported["titles"]) == imported["nodes"]
    assert imported["functions"]


def test_every_input_has_a_tooltip(imported: dict[str, Any]) -> None:
    assert imported["tooltips_missing"] == []


def test_node_files_do_not_know_the_floors_above_and_only_one_knows_comfyui() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"from \.\.(headless|training)", text), path
        assert path.name == "comfy_host.py" or not re.search(r"\b(folder_paths|comfy\.|import comfy)", text), path


def test_core_knows_no_floor_above_it() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        assert not re.search(r"from \.+(headless|training|nodes)\b|import (folder_paths|comfy)\b", path.read_text(encoding="utf-8")), path
