from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kintsugi.core.errors import FileAccessError, Interrupted, KintsugiError, WorkflowError
from kintsugi.headless.run import WorkflowResult, find_workflow
from tiny_workflow import SHRINK, on_command_line, pixels, stock_runner, write_picture, write_workflow


def shrunk(workflow: Path, photo: Path, output: Path, **changes: Any) -> WorkflowResult:
    with on_command_line(output) as (_, folders):
        return stock_runner(workflow, **changes).run({"1": photo}, folders)


def test_a_workflow_runs_on_a_file_from_anywhere(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "elsewhere/deep/x.png")
    result = shrunk(write_workflow(tmp_path), photo, tmp_path / "out")
    assert result.files == [tmp_path / "out/small_00001_.png"]
    assert pixels(result.files[0]).shape == (4, 6, 3)
    assert (result.texts, result.blocked) == ({}, [])


def test_results_are_numbered_on_and_equal(tmp_path: Path) -> None:
    photo, workflow = write_picture(tmp_path / "x.png"), write_workflow(tmp_path)
    first, second = (shrunk(workflow, photo, tmp_path / "out").files[0] for _ in range(2))
    assert second.name == "small_00002_.png"
    assert first.read_bytes() == second.read_bytes()


def test_the_picture_that_a_run_wrote_runs_again_to_the_same_pixels(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "x.png")
    first = shrunk(write_workflow(tmp_path), photo, tmp_path / "out", sets=("2.scale_by=0.25",)).files[0]
    again = shrunk(first, photo, tmp_path / "out").files[0]
    assert np.array_equal(pixels(first), pixels(again))
    assert pixels(first).shape == (2, 3, 3)


def test_a_picture_carries_no_path_of_the_person(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "secret-folder/x.png")
    assert b"secret-folder" not in shrunk(write_workflow(tmp_path), photo, tmp_path / "out").files[0].read_bytes()


def test_every_fault_has_a_line_with_node_title_and_input(tmp_path: Path) -> None:
    prompt = deepcopy(SHRINK)
    prompt["2"]["inputs"]["scale_by"] = 99
    prompt["2"]["inputs"]["upscale_method"] = "magic"
    photo = write_picture(tmp_path / "x.png")
    with pytest.raises(WorkflowError) as caught:
        shrunk(write_workflow(tmp_path, prompt), photo, tmp_path / "out")
    first, *lines = str(caught.value).splitlines()
    assert "shrink.json" in first
    assert len(lines) == 2
    assert all('node 2 "Shrink it", input ' in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_unknown_nodes_are_listed_all_at_once(tmp_path: Path) -> None:
    prompt = deepcopy(SHRINK)
    prompt["8"] = {"class_type": "FancyLoader", "inputs": {}}
    prompt["9"] = {"class_type": "FancySaver", "inputs": {}}
    with pytest.raises(WorkflowError, match=r"(?s)FancyLoader.*FancySaver"):
        stock_runner(write_workflow(tmp_path, prompt))


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"1": {"class_type": 3, "inputs": {}}}', '{"1": {"class_type": "LoadImage"}}', ""])
def test_malformed_workflows_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(WorkflowError, match=r"bad\.json"):
        stock_runner(path)


def test_a_node_that_fails_is_named_and_its_cause_kept(tmp_path: Path) -> None:
    photo = tmp_path / "broken.png"
    photo.write_bytes(write_picture(tmp_path / "x.png", 64, 64).read_bytes()[:500])
    with pytest.raises(KintsugiError, match=r"^node 1 \(Photo\): ") as caught:
        shrunk(write_workflow(tmp_path), photo, tmp_path / "out")
    assert type(caught.value) is KintsugiError
    assert caught.value.__cause__ is not None


def test_an_interruption_ends_the_run(tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "x.png")
    with on_command_line(tmp_path / "out") as (host, folders), pytest.raises(Interrupted):
        host.stop.requested = True
        stock_runner(write_workflow(tmp_path)).run({"1": photo}, folders)
    assert not list(tmp_path.glob("out/*"))


def test_an_unknown_workflow_lists_the_packages_own() -> None:
    with pytest.raises(FileAccessError, match="no such workflow"):
        find_workflow("nonsense")


def test_what_a_node_shows_as_text_is_reported(tmp_path: Path) -> None:
    class Report:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "report", True

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {"image": ("IMAGE",)}}

        def report(self, image: Any) -> dict[str, Any]:
            return {"ui": {"text": [f"{image.shape[2]} wide"]}}

    from kintsugi.core.graph.registry import Registry
    from kintsugi.core.graph.stock_nodes import NODE_CLASS_MAPPINGS
    from kintsugi.headless.changes import Changes
    from kintsugi.headless.run import WorkflowRunner

    prompt = {"1": SHRINK["1"], "5": {"class_type": "Report", "inputs": {"image": ["1", 0]}}}
    runner = WorkflowRunner(write_workflow(tmp_path, prompt), Changes(), Registry({**NODE_CLASS_MAPPINGS, "Report": Report}))
    with on_command_line(tmp_path / "out") as (_, folders):
        assert runner.run({"1": write_picture(tmp_path / "x.png")}, folders).texts == {"5": ["12 wide"]}


def test_the_workflow_of_the_editor_travels_in_the_result(tmp_path: Path) -> None:
    workflow = {
        "version": 0.4,
        "last_node_id": 2,
        "last_link_id": 1,
        "nodes": [
            {"id": 1, "type": "LoadImage", "mode": 0, "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
             "widgets_values": ["any.png", "image"], "properties": {}, "pos": [0, 0], "size": [1, 1], "flags": {}, "order": 0},
            {"id": 2, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
             "widgets_values": ["small"], "properties": {}, "pos": [0, 0], "size": [1, 1], "flags": {}, "order": 1},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }  # fmt: skip
    photo = write_picture(tmp_path / "x.png")
    written = shrunk(write_workflow(tmp_path, workflow), photo, tmp_path / "out").files[0]
    from PIL import Image

    with Image.open(written) as image:
        assert json.loads(image.info["workflow"]) == workflow
    assert np.array_equal(pixels(written), pixels(photo))
