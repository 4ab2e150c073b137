"""Node classes are described as ComfyUI's server describes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kintsugi.core.errors import WorkflowError
from kintsugi.core.graph import stock_nodes
from kintsugi.core.graph.registry import Registry
from kintsugi.core.runtime import LocalHost
from small_nodes import NODES


class Broken:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        raise RuntimeError("no folder")


@pytest.fixture
def registry() -> Registry:
    return Registry(NODES | stock_nodes.NODE_CLASS_MAPPINGS | {"Broken": Broken}, stock_nodes.NODE_DISPLAY_NAME_MAPPINGS)


def test_entry_of_object_info_has_what_the_editor_reads(registry: Registry) -> None:
    entry = registry.object_info()["ImageScale"]
    assert entry["name"] == "ImageScale" and entry["display_name"] == "Upscale Image" and entry["category"] == "image/upscaling"
    assert entry["input_order"] == {"required": ["image", "upscale_method", "width", "height", "crop"]}
    assert entry["output"] == entry["output_name"] == ["IMAGE"] and entry["output_is_list"] == [False]
    assert entry["output_node"] is False and entry["python_module"] == "nodes"
    assert registry.object_info()["SaveImage"]["output_node"] is True


def test_object_info_is_json_and_leaves_out_classes_that_raise(registry: Registry) -> None:
    info = json.loads(json.dumps(registry.object_info()))
    assert "Broken" not in info and set(info) == set(NODES) | set(stock_nodes.NODE_CLASS_MAPPINGS)
    with pytest.raises(WorkflowError, match="Broken cannot tell its inputs: no folder"):
        registry.definition("Broken")


def test_both_spellings_of_choices_are_read(registry: Registry) -> None:
    inputs = registry.definition("Widgets").inputs
    assert inputs["file"].type == inputs["mode"].type == "COMBO"
    assert inputs["file"].choices == ["a.png", "b.png"] and inputs["mode"].choices == ["fast", "slow"]


def test_definitions_are_read_once_and_anew_after_refresh(registry: Registry, host: LocalHost) -> None:
    first = registry.definition("LoadImage")
    (host.folders.input / "new.png").touch()
    assert registry.definition("LoadImage") is first and first.inputs["image"].choices == []
    registry.refresh()
    assert registry.definition("LoadImage").inputs["image"].choices == ["new.png"]
    assert registry.object_info()["LoadImage"]["input"]["required"]["image"][0] == ["new.png"]


def test_hidden_inputs_are_read_in_both_spellings(registry: Registry) -> None:
    assert registry.definition("Hidden").hidden == {"own": "UNIQUE_ID", "prompt": "PROMPT", "graph": "DYNPROMPT", "info": "EXTRA_PNGINFO"}
    assert registry.definition("Hidden").cached_per_node and not registry.definition("Number").cached_per_node


def test_every_stock_input_has_a_tooltip(registry: Registry) -> None:
    for class_type in stock_nodes.NODE_CLASS_MAPPINGS:
        for entry in registry.definition(class_type).inputs.values():
            assert entry.options.get("tooltip"), f"{class_type}.{entry.name}"
