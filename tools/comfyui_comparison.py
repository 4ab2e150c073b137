"""Nodes and pictures of the two sides of tools/try_in_comfyui.py, and how they differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from comfyui_server import Place, Server, kintsugi
from PIL import Image

# What each side fills in for itself, and what older servers do not send.
HOST_FIELDS = ("python_module", "search_aliases")


def compare_nodes(server: Server, python: Path, place: Place) -> list[str]:
    """Both sides' account of our nodes, with the same pictures in the folder that Load Photo lists."""
    (place.folder / "input").symlink_to(place.inputs, target_is_directory=True)
    return node_differences(kintsugi(python, place, "nodes", "--json"), server.call("/object_info"))


def node_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """How two answers of /object_info differ on our nodes, a line each."""
    lines = []
    for name in (name for name in ours if name.startswith("Kintsugi")):
        if name not in theirs:
            lines.append(f"{name} is not in ComfyUI.")
            continue
        fields = sorted((set(ours[name]) | set(theirs[name])) - set(HOST_FIELDS))
        differing = [field for field in fields if ours[name].get(field) != theirs[name].get(field)]
        lines += [f"{name}.{field}: {ours[name].get(field)!r}, in ComfyUI {theirs[name].get(field)!r}" for field in differing]
    return lines


def compare_workflow(server: Server, python: Path, place: Place, workflow: Path) -> list[str]:
    """What differs between the pictures of `kintsugi run` and those of ComfyUI for the same prompt."""
    arguments = ("run", workflow, "--cpu", "--input-directory", place.inputs)
    prompt = kintsugi(python, place, *arguments, "--print-prompt")
    document = json.loads(workflow.read_text(encoding="utf-8"))
    for folder in (place.ours, place.theirs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    kintsugi(python, place, *arguments, "-o", place.ours, "--json")
    server.run(prompt, document if "nodes" in document else None)
    return folder_differences(place.ours, place.theirs)


def folder_differences(ours: Path, theirs: Path) -> list[str]:
    """Files that only one side wrote, and pictures that are not the same, a line each."""
    left, right = ({str(path.relative_to(folder)): path for path in folder.rglob("*.*")} for folder in (ours, theirs))
    if not left and not right:
        return ["no side wrote a picture"]
    lines = [f"{name} was written by one side alone" for name in sorted(set(left) ^ set(right))]
    found = ((name, picture_difference(left[name], right[name])) for name in sorted(set(left) & set(right)))
    return lines + [f"{name}: {difference}" for name, difference in found if difference]


def picture_difference(ours: Path, theirs: Path) -> str | None:
    """In words how two picture files differ; None when their pixels are the same."""
    if ours.read_bytes() == theirs.read_bytes():
        return None
    with Image.open(ours) as left, Image.open(theirs) as right:
        if (left.size, left.mode) != (right.size, right.mode):
            return f"{left.size} {left.mode}, in ComfyUI {right.size} {right.mode}"
        levels = np.abs(np.asarray(left).astype(np.int64) - np.asarray(right).astype(np.int64))
    return f"{np.count_nonzero(levels)} values differ, by {levels.max()} at most" if levels.any() else None
