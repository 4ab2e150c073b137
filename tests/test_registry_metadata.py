"""What ComfyUI's registry and its servers read from pyproject.toml: every field known, of its kind, and true."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from PIL import Image

ROOT = Path(__file__).parent.parent
TRIED_COMFYUI = "0.3.64"
COMFY_FIELDS: dict[str, type] = {
    "PublisherId": str, "DisplayName": str, "Icon": str, "banner_url": str, "Models": list, "includes": list, "web": str,
    "requires-comfyui": str,
}  # fmt: skip
# Of these the registry reads what a pack runs on; Python's own are for PyPI.
KNOWN_CLASSIFIERS = re.compile(
    r"Operating System :: .+|Programming Language :: Python.*"
    r"|Environment :: GPU :: (NVIDIA CUDA|AMD ROCm|Intel Arc|Apple Metal)|Environment :: NPU :: Huawei Ascend"
)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def comfy(pyproject: dict[str, Any]) -> dict[str, Any]:
    return dict(pyproject["tool"]["comfy"])


@pytest.fixture(scope="module")
def icon() -> ModuleType:
    """tools/make_icon.py, which is a script beside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("make_icon")


def test_the_project_has_every_field_that_the_registry_reads(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    wanted = ("name", "version", "description", "license", "requires-python", "dependencies", "classifiers")
    assert [field for field in wanted if not project.get(field)] == []
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", project["name"]), "the registry's id"
    assert Version(project["version"]).release == tuple(map(int, project["version"].split("."))), "three plain numbers"
    assert (ROOT / project["readme"]).is_file()


def test_the_fields_of_comfyui_are_known_and_of_their_kind(comfy: dict[str, Any]) -> None:
    assert [key for key, value in comfy.items() if not isinstance(value, COMFY_FIELDS[key])] == []
    assert comfy["PublisherId"] and comfy["DisplayName"]


def test_addresses_are_addresses_of_a_known_host_or_empty(pyproject: dict[str, Any], comfy: dict[str, Any]) -> None:
    # A path would be taken for an address. Without a public repository there is nothing to point at.
    given = [comfy.get("Icon", ""), comfy.get("banner_url", ""), *pyproject["project"].get("urls", {}).values()]
    assert [address for address in given if address and not address.startswith("https://")] == []


def test_what_is_included_exists(comfy: dict[str, Any]) -> None:
    assert [name for name in comfy["includes"] if not (ROOT / name).exists()] == []


def test_the_comfyui_that_was_tried_is_in_the_supported_range(comfy: dict[str, Any]) -> None:
    assert TRIED_COMFYUI in SpecifierSet(comfy["requires-comfyui"])


def test_classifiers_are_those_that_the_registry_knows(pyproject: dict[str, Any]) -> None:
    assert [name for name in pyproject["project"]["classifiers"] if not KNOWN_CLASSIFIERS.fullmatch(name)] == []


def test_both_icons_are_those_that_the_tool_draws(icon: ModuleType) -> None:
    text = (ROOT / "web" / "icon.svg").read_text(encoding="utf-8")
    assert text == icon.svg()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    with Image.open(ROOT / "web" / "icon.png") as shipped:
        assert shipped.size == (400, 400), "what the registry shows at most"
        corner, clay = shipped.convert("RGBA").getpixel((1, 1)), shipped.convert("RGBA").getpixel((80, 200))
    assert corner[3] == 0
    assert abs(clay[0] - 0x2F) < 8


def test_web_pages_locales_and_icons_go_into_the_package(pyproject: dict[str, Any]) -> None:
    shipped = pyproject["tool"]["setuptools"]["package-data"]["kintsugi"]
    assert {"web/**/*", "locales/**/*", "workflows/*", "pyproject.toml"} <= set(shipped)
