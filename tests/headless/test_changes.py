from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kintsugi.core.errors import BadValueError, FileAccessError
from kintsugi.core.folders import Folders
from kintsugi.core.graph.registry import Registry
from kintsugi.headless.changes import Changes, Prompt, assigned_files, changed, seeds_of, with_files


class Loader:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"image": (["a.png"], {"image_upload": True})}}

    RETURN_TYPES = ("IMAGE",)


class Worker:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "image": ("IMAGE",),
                "steps": ("INT", {"default": 1}),
                "scale": ("FLOAT", {"default": 1.0}),
                "fast": ("BOOLEAN", {}),
                "weights": (["auto", "embedded"], {}),
                "mode": (["soft", "hard"], {}),
                "seed": ("INT", {}),
                "note": ("STRING", {}),
            }
        }

    RETURN_TYPES = ("IMAGE",)


class Saver:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"image": ("IMAGE",), "format": (["auto", "png", "jpeg"], {})}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True


REGISTRY = Registry({"Loader": Loader, "Worker": Worker, "Saver": Saver})


@pytest.fixture
def prompt() -> Prompt:
    values = {"image": ["1", 0], "steps": 3, "scale": 2.0, "fast": False, "weights": "auto", "mode": "soft", "seed": 5, "note": ""}
    return {
        "1": {"class_type": "Loader", "inputs": {"image": "a.png"}, "_meta": {"title": "Load"}},
        "4:2": {"class_type": "Worker", "inputs": values, "_meta": {"title": "Restore v1.5"}},
        "7": {"class_type": "Saver", "inputs": {"image": ["4:2", 0], "format": "auto"}},
    }


def after(prompt: Prompt, *sets: str, **more: Any) -> dict[str, Any]:
    return changed(prompt, REGISTRY, Changes(sets=sets, **more))["4:2"]["inputs"]


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("4:2.steps=8", "steps", 8),
        ("Restore v1.5.scale=1.5", "scale", 1.5),
        ("4:2.fast=yes", "fast", True),
        ("4:2.mode=hard", "mode", "hard"),
        ("4:2.note=a=b.c", "note", "a=b.c"),
        ("4:2.note=", "note", ""),
    ],
)
def test_a_widget_is_set_by_id_or_title_in_its_own_type(prompt: Prompt, assignment: str, name: str, value: Any) -> None:
    result = after(prompt, assignment)[name]
    assert (result, type(result)) == (value, type(value))
    assert prompt["4:2"]["inputs"]["steps"] == 3, "the prompt given is not changed"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("9.steps=8", "no node has the id or title '9'.*Nodes: 1 'Load'; 4:2 'Restore v1.5'"),
        ("4:2.stops=8", "no widget 'stops'.*It has: steps, scale"),
        ("4:2.steps=many", "'many' is no INT"),
        ("4:2.scale=nan", "'nan' is no FLOAT"),
        ("4:2.fast=maybe", "'maybe' is no BOOLEAN"),
        ("4:2.mode=medium", "'medium' is not a choice of 'mode'.*It offers: soft, hard"),
        ("4:2.image=3", "no widget 'image'"),
        ("steps", "NODE.input=value"),
        ("steps=3", "NODE.input=value"),
    ],
)
def test_what_cannot_be_set_lists_what_can(prompt: Prompt, assignment: str, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        after(prompt, assignment)


def test_a_connected_widget_names_its_source(prompt: Prompt) -> None:
    prompt["4:2"]["inputs"]["steps"] = ["1", 0]
    with pytest.raises(BadValueError, match=r"'steps' of 'Restore v1\.5' is connected to node 1"):
        after(prompt, "4:2.steps=3")


def test_a_title_that_two_nodes_have_is_refused(prompt: Prompt) -> None:
    prompt["1"]["_meta"]["title"] = "Restore v1.5"
    with pytest.raises(BadValueError, match="2 nodes are titled"):
        after(prompt, "Restore v1.5.steps=3")


def test_scale_and_seed_reach_every_widget_of_that_name(prompt: Prompt) -> None:
    assert after(prompt, values={"scale": 1 + 1 / 3})["scale"] == 1 + 1 / 3
    result = after(prompt, values={"scale": 4, "seed": 2**62})
    assert (result["scale"], result["seed"]) == (4.0, 2**62)
    with pytest.raises(BadValueError, match="no node of this workflow has a widget 'strength'"):
        after(prompt, values={"strength": 1})


def test_embedded_replaces_every_choice_of_weights(prompt: Prompt) -> None:
    assert after(prompt, embedded=True)["weights"] == "embedded"


def test_a_file_format_goes_to_the_nodes_that_save(prompt: Prompt) -> None:
    assert changed(prompt, REGISTRY, Changes(file_format="jpeg"))["7"]["inputs"]["format"] == "jpeg"
    assert changed(prompt, REGISTRY, Changes(file_format="avif"))["7"]["inputs"]["format"] == "auto"


def test_a_bare_path_goes_to_the_only_loader(prompt: Prompt, tmp_path: Path) -> None:
    odd = tmp_path / "a=b.png"
    odd.touch()
    assert assigned_files(prompt, REGISTRY, ["photo.png"]) == {"1": Path("photo.png")}
    assert assigned_files(prompt, REGISTRY, [str(odd)]) == {"1": odd}
    assert assigned_files(prompt, REGISTRY, ["Load=photo.png"]) == {"1": Path("photo.png")}


def test_with_two_loaders_a_bare_path_asks_which(prompt: Prompt) -> None:
    prompt["2"] = {"class_type": "Loader", "inputs": {"image": "a.png"}}
    with pytest.raises(BadValueError, match=r"several pictures.*1 'Load'; 2 'Loader'"):
        assigned_files(prompt, REGISTRY, ["photo.png"])


def test_a_node_that_loads_nothing_is_named(prompt: Prompt) -> None:
    with pytest.raises(BadValueError, match=r"'Restore v1.5' loads no picture.*1 'Load'"):
        assigned_files(prompt, REGISTRY, ["4:2=photo.png"])


def test_files_are_granted_by_name_and_equal_names_are_told_apart(prompt: Prompt, tmp_path: Path) -> None:
    prompt["2"] = {"class_type": "Loader", "inputs": {"image": "a.png"}}
    paths = [tmp_path / "one/x.png", tmp_path / "two/x.png"]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    result, folders = with_files(prompt, REGISTRY, Folders(), {"1": paths[0], "2": paths[1]})
    names = [result[node]["inputs"]["image"] for node in ("1", "2")]
    assert names == ["x.png", "x (1).png"]
    assert [folders.find(name) for name in names] == [path.resolve() for path in paths]


def test_a_missing_picture_is_named(prompt: Prompt, tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"gone\.png: no such file"):
        with_files(prompt, REGISTRY, Folders(), {"1": tmp_path / "gone.png"})


def test_seeds_are_found(prompt: Prompt) -> None:
    assert seeds_of(prompt) == {"4:2": 5}
