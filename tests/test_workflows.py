"""The workflows that ship: each opens in the editor, converts as expected, is valid, explained, and runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kintsugi.core.graph.conversion import to_prompt
from kintsugi.core.graph.registry import Registry
from kintsugi.core.graph.validation import validate
from kintsugi.core.graph.widgets import UPLOAD, has_widget, stored_order
from kintsugi.core.runtime import LocalHost
from kintsugi.headless.cli import run_command_line
from kintsugi.headless.node_registry import full_registry
from PIL import Image

ROOT = Path(__file__).parent.parent
EXPECTED = Path(__file__).parent / "golden" / "workflows"
FILES = sorted((ROOT / "workflows").glob("*.json"))
NOTES = ("MarkdownNote", "Note")
OPTIONAL_SHAPE = 7
LARGEST_THUMBNAIL = 60_000
# What each workflow makes of a photo of 64 x 48 pixels, in the order of its nodes.
RESULTS = {
    "restore_photo": [(64, 48)],
    "degrade_and_score": [(128, 48)],
    "tsd_sr": [(256, 192)],
    "gendr": [(256, 192)],
    "instarevive_photo": [(64, 48)],
    "instarevive_face": [(64, 48)],
    "instarevive_cartoon": [(64, 48)],
    "restore_faces": [(64, 48), (128, 48)],
    "compare_one_step": [(64, 48), (128, 48)] * 3,
    "instantir": [(64, 48)],
    "instantir_creative": [(64, 48)],
    "fluxir": [(64, 48)],
    "fluxgen_dataset": [(64, 64), (64, 64), (16, 16), (16, 16)],
    "instantir_previews": [(64, 48), (6 * 64 + 5 * 8, 5 * 48 + 4 * 8)],
}
# Those that take no photo, with what makes their own small.
DRAWN = {"fluxgen_dataset": ["--set", "Draw.width=64", "--set", "Draw.height=64", "--set", "Draw.steps=2"]}
# What ComfyUI's canvas draws, in its pixels: a title above the node's place, then rows of sockets, then its widgets.
TITLE, SOCKET_ROW, WIDGET_ROW, TEXT_BOX, LOADED_PICTURE, MARGINS = 30, 20, 24, 54, 224, 14


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def workflow(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def registry() -> Registry:
    return full_registry()


def our_nodes(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in workflow["nodes"] if node["type"] not in NOTES]


def write_photo(path: Path, mode: str = "RGBA") -> Path:
    """A small gradient, half transparent on its right side."""
    ramp = np.linspace(40, 200, 64 * 48).reshape(48, 64).astype(np.uint8)
    alpha = np.where(np.arange(64) < 32, 255, 128).astype(np.uint8)[None].repeat(48, 0)
    Image.fromarray(np.stack([ramp, ramp[:, ::-1], ramp[::-1], alpha], axis=2)).convert(mode).save(path)
    return path


def test_conversion_gives_the_expected_prompt(file: Path, workflow: dict[str, Any], registry: Registry) -> None:
    assert to_prompt(workflow, registry) == json.loads((EXPECTED / f"{file.stem}.api.json").read_text(encoding="utf-8"))


def test_prompt_is_valid(workflow: dict[str, Any], registry: Registry, host: LocalHost) -> None:
    write_photo(host.folders.input / "example.png")
    validation = validate(to_prompt(workflow, registry), registry)
    assert validation.error is None and validation.node_errors == {}


def test_file_is_what_the_editor_saves(workflow: dict[str, Any], registry: Registry) -> None:
    assert workflow["version"] == 0.4
    ids = [node["id"] for node in workflow["nodes"]]
    assert len(set(ids)) == len(ids) and max(ids) == workflow["last_node_id"]
    assert [link[0] for link in workflow["links"]] == list(range(1, workflow["last_link_id"] + 1))
    for node in our_nodes(workflow):
        definition = registry.definition(node["type"])
        sockets = [entry for entry in definition.inputs.values() if not has_widget(entry)]
        assert [entry["name"] for entry in node["inputs"]] == [entry.name for entry in sockets]
        assert [entry.get("shape") for entry in node["inputs"]] == [None if entry.required else OPTIONAL_SHAPE for entry in sockets]
        assert tuple(entry["type"] for entry in node["outputs"]) == definition.output_types
        assert list(node.get("widgets_values_named", {})) == stored_order(definition)
        assert list(node.get("widgets_values_named", {}).values()) == node.get("widgets_values", [])


def test_both_ends_of_every_link_know_it(workflow: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, slot, target, place, kind in workflow["links"]:
        output, entry = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert number in output["links"] and entry["link"] == number
        assert output["type"] == entry["type"] == kind


def test_every_node_has_a_title_of_its_own_and_weights_are_auto(workflow: dict[str, Any]) -> None:
    titles = [node.get("title") for node in workflow["nodes"]]
    assert all(titles) and len(set(titles)) == len(titles)
    named = [node["widgets_values_named"] for node in our_nodes(workflow)]
    assert {values["weights"] for values in named if "weights" in values} == {"auto"}


def test_a_note_names_the_files_and_their_licence(workflow: dict[str, Any]) -> None:
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    assert len(notes) == 1
    assert "safetensors" in notes[0] and "licence Apache-2.0" in notes[0]


def test_groups_hold_their_nodes_and_nothing_overlaps(workflow: dict[str, Any]) -> None:
    boxes = {node["title"]: drawn(node) for node in workflow["nodes"]}
    groups = [group["bounding"] for group in workflow["groups"]]
    for first, second in combinations(boxes, 2):
        assert not overlap(boxes[first], boxes[second]), (first, second)
    assert not any(overlap(one, other) for one, other in combinations(groups, 2))
    for node in our_nodes(workflow):
        assert any(contains(group, boxes[node["title"]]) for group in groups), node["title"]


def test_every_node_is_as_high_as_the_canvas_draws_it(workflow: dict[str, Any], registry: Registry) -> None:
    for node in our_nodes(workflow):
        definition = registry.definition(node["type"])
        boxes = sum(bool(entry.options.get("multiline")) for entry in definition.inputs.values())
        widgets = WIDGET_ROW * (len(stored_order(definition)) - boxes) + TEXT_BOX * boxes
        picture = LOADED_PICTURE if UPLOAD in stored_order(definition) else 0
        rows = SOCKET_ROW * max(len(node["inputs"]), len(node["outputs"]), 1)
        assert node["size"][1] >= rows + widgets + picture + MARGINS, node["title"]


def drawn(node: dict[str, Any]) -> tuple[float, ...]:
    """(left, top, width, height) of a node with its title."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE, width, height + TITLE


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))


def contains(outer: Sequence[float], inner: Sequence[float]) -> bool:
    return all(outer[axis] <= inner[axis] and inner[axis] + inner[axis + 2] <= outer[axis] + outer[axis + 2] for axis in (0, 1))


def test_thumbnail_of_the_same_name_is_a_square_jpeg(file: Path) -> None:
    with Image.open(file.with_suffix(".jpg")) as thumbnail:
        assert thumbnail.format == "JPEG" and thumbnail.size == (512, 512)
    assert file.with_suffix(".jpg").stat().st_size <= LARGEST_THUMBNAIL


def test_runs_headless_with_the_weights_that_ship(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = DRAWN.get(file.stem) or ["--input", str(write_photo(tmp_path / "photo.png"))]
    assert run_command_line(["run", file.stem, *given, "-o", str(tmp_path / "out"), "--embedded", "--cpu", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert [sizes(path) for path in report["files"]] == RESULTS[file.stem]


@pytest.mark.parametrize("file", [path for path in FILES if path.stem not in DRAWN], ids=lambda path: path.stem)
def test_restores_a_photo_under_the_name_that_a_person_gives(
    file: Path, workflow: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = write_photo(tmp_path / "photo.png")
    converts = "KintsugiSavePhoto" in {node["type"] for node in workflow["nodes"]}
    result = tmp_path / ("restored.webp" if converts else "restored.png")
    assert run_command_line(["restore", str(photo), "-o", str(result), "--workflow", file.stem, "--embedded", "--cpu", "--json"]) == 0
    [restored] = json.loads(capfd.readouterr().out)
    assert restored["outputs"][0] == str(result)
    assert [sizes(path) for path in restored["outputs"]] == RESULTS[file.stem]


def sizes(path: Path | str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_restoring_keeps_size_and_transparency_and_says_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo, result = write_photo(tmp_path / "photo.png"), tmp_path / "restored.png"
    assert run_command_line(["restore", str(photo), "-o", str(result), "--embedded", "--cpu"]) == 0
    said = capfd.readouterr()
    assert re.fullmatch(r"(\w+: \d+/\d+\n)*", said.err), "nothing but progress, which shows after ten seconds"
    assert said.out.count("\n") == 1
    with Image.open(photo) as before, Image.open(result) as after:
        assert after.size == before.size and after.mode == "RGBA"
        assert np.array_equal(np.asarray(after)[..., 3], np.asarray(before)[..., 3])
        assert not np.array_equal(np.asarray(after)[..., :3], np.asarray(before)[..., :3])


def test_degrading_and_scoring_reports_both_scores_and_a_comparison(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo, results = write_photo(tmp_path / "photo.png", "RGB"), tmp_path / "results"
    assert run_command_line(["run", "degrade_and_score", "--input", str(photo), "-o", str(results), "--embedded", "--cpu", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert len(report["texts"]) == 2
    assert all(text.startswith("psnr ") and "ssim " in text for [text] in report["texts"].values())
    with Image.open(report["files"][0]) as pair:
        assert pair.size == (128, 48)
