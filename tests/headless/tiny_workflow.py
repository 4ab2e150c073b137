"""A workflow of stock nodes and small pictures, for the commands that run workflows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kintsugi.core.folders import Folders
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.registry import Registry
from kintsugi.headless.changes import Changes
from kintsugi.headless.host import CommandLineHost, command_line_host
from kintsugi.headless.options import HostOptions
from kintsugi.headless.run import WorkflowRunner
from PIL import Image

SHRINK: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "any.png"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": 0.5},
        "_meta": {"title": "Shrink it"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "small"}, "_meta": {"title": "Save"}},
}


def write_workflow(folder: Path, prompt: dict[str, Any] = SHRINK) -> Path:
    path = folder / "shrink.json"
    path.write_text(json.dumps(prompt))
    return path


def write_picture(path: Path, width: int = 12, height: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(samples).save(path)
    return path


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def stock_runner(workflow: Path, **changes: Any) -> WorkflowRunner:
    return WorkflowRunner(workflow, Changes(**changes), Registry(stock_nodes.NODE_CLASS_MAPPINGS, stock_nodes.NODE_DISPLAY_NAME_MAPPINGS))


@contextmanager
def on_command_line(output: Path) -> Iterator[tuple[CommandLineHost, Folders]]:
    folders = Folders(input=output.parent, output=output)
    with command_line_host(HostOptions(cpu=True), folders) as host:
        yield host, folders
