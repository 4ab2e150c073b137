"""One workflow, three files: the editor's JSON, the prompt's JSON and the picture it wrote run to the same pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.conversion import prompt_of
from kintsugi.core.graph.documents import read_workflow
from kintsugi.core.graph.executor import Executor
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.validation import validate
from kintsugi.core.runtime import LocalHost
from PIL import Image

FIXTURES = Path(__file__).parents[2] / "golden" / "comfyui" / "fixtures"
REGISTRY = Registry(stock_nodes.NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize(
    ("pair", "output", "stem", "size"),
    [("reroute_bypass_primitive", "6", "kz_reroute", (128, 96)), ("subgraph_basic", "4", "kz_subgraph", (80, 48))],
)
def test_workflow_prompt_and_picture_run_to_the_same_pixels(pair: str, output: str, stem: str, size: Any, host: LocalHost) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (768, 768, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(host.folders.input / "example.png")
    from_ui = run(FIXTURES / f"{pair}.workflow.json", output, host)
    from_api = run(FIXTURES / f"{pair}.api.json", output, host)
    from_picture = run(from_ui, output, host)
    assert [path.name for path in (from_ui, from_api, from_picture)] == [f"{stem}_{index:05d}_.png" for index in (1, 2, 3)]
    assert from_ui.read_bytes() == from_picture.read_bytes()
    with Image.open(from_ui) as one, Image.open(from_api) as other:
        assert one.size == size and np.array_equal(np.array(one), np.array(other))


def run(path: Path, output: str, host: LocalHost) -> Path:
    document = read_workflow(path)
    prompt = prompt_of(document, REGISTRY)
    checked = validate(prompt, REGISTRY)
    assert checked.outputs == [output]
    extra = {"extra_pnginfo": {"workflow": document.workflow}} if document.workflow else {}
    result = Executor(REGISTRY).run(prompt, checked.outputs, extra_data=extra)
    assert result.status == "success", result.error
    assert json.dumps(result.ui[output])
    return host.folders.output / result.ui[output]["images"][0]["filename"]
