"""What is shipped, with what it asks for: package data, requirements, pins, registry fields and file sizes."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import kintsugi
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import Distribution, find_packages

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "nodes", "training", "headless")
DATA = ("workflows", "web", "locales", "training/recipes", "core/weights/embedded", "docs/sample", "headless/server/page_scripts")
MEGABYTE = 2**20
COMFY_FIELDS = {"PublisherId", "DisplayName", "Icon", "banner_url", "Models", "includes", "web", "requires-comfyui"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped() -> set[str]:
    """Every file that a wheel would hold, relative to the root, as setuptools collects them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        packages = ["kintsugi", *(f"kintsugi.{name}" for name in find_packages(include=[f"{name}*" for name in PACKAGES]))]
        distribution = Distribution({"packages": packages, "script_name": "setup.py"})
        distribution.parse_config_files(["pyproject.toml"])
        command = distribution.get_command_obj("build_py")
        command.ensure_finalized()
        prefix = Path(command.build_lib) / "kintsugi"
        return {Path(path).relative_to(prefix).as_posix() for path in command.get_outputs(include_bytecode=False)}


def files_below(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def lower_bound(requirement: Requirement) -> str:
    return next(bound.version for bound in requirement.specifier if bound.operator == ">=")


def test_every_module_and_every_data_file_is_shipped(shipped: set[str]) -> None:
    modules = [path for folder in PACKAGES for path in files_below(folder) if path.suffix == ".py"]
    data = [path for folder in DATA for path in files_below(folder)]
    assert modules and data
    wanted = {path.relative_to(ROOT).as_posix() for path in [*modules, *data]} | {"__init__.py", "__main__.py"}
    assert wanted - shipped == set()


def test_tests_tools_and_caches_are_not_shipped(shipped: set[str]) -> None:
    assert not [path for path in shipped if path.startswith(("tests/", "tools/", ".", "build/")) or "__pycache__" in path]


def test_the_weights_of_the_default_restorer_are_shipped(shipped: set[str]) -> None:
    assert {"core/weights/embedded/mini-vae.safetensors", "core/weights/embedded/mini-gendr.safetensors"} <= shipped


def test_setup_and_this_test_name_the_same_packages() -> None:
    assert re.findall(r'"(\w+)\*"', (ROOT / "setup.py").read_text(encoding="utf-8")) == list(PACKAGES)


def test_requirements_for_comfyui_are_those_of_the_project_without_torch_as_lower_bounds(project: dict[str, Any]) -> None:
    for_comfyui, own = requirements(lines_of("requirements.txt")), requirements(project["project"]["dependencies"])
    assert set(for_comfyui) == set(own) - {"torch"}
    assert "torchvision" not in own
    for name, requirement in for_comfyui.items():
        assert [bound.operator for bound in requirement.specifier] == [">="], name
        assert requirement.specifier.contains(lower_bound(own[name])), name


def test_everything_that_is_installed_for_tests_is_pinned(project: dict[str, Any]) -> None:
    pins = requirements(lines_of("constraints.txt"))
    assert all([bound.operator for bound in pin.specifier] == ["=="] for pin in pins.values())
    extra = project["project"]["optional-dependencies"]["dev"]
    waiting = [*requirements([*project["project"]["dependencies"], *extra]).values()]
    seen: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in seen:
            continue
        seen.add(name)
        waiting += needed_by(name)
    assert seen - set(pins) == set()


def needed_by(name: str) -> list[Requirement]:
    """What an installed distribution asks for here, its extras aside."""
    try:
        asked = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(line) for line in asked]
    return [requirement for requirement in parsed if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]


def test_pins_lie_within_the_supported_ranges(project: dict[str, Any]) -> None:
    pins = requirements(lines_of("constraints.txt"))
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    for name, supported in requirements([line for group in groups for line in group]).items():
        if name in pins:
            version = next(iter(pins[name].specifier)).version
            assert supported.specifier.contains(version), name


def test_registry_fields_are_known_and_filled(project: dict[str, Any]) -> None:
    fields = project["tool"]["comfy"]
    assert set(fields) <= COMFY_FIELDS
    assert fields["PublisherId"] and fields["DisplayName"]
    assert project["project"]["version"] == kintsugi.__version__


def test_folder_of_the_frontend_exists_and_is_named_once(project: dict[str, Any]) -> None:
    assert (ROOT / kintsugi.WEB_DIRECTORY).is_dir()
    assert "web" not in project["tool"]["comfy"], "help pages are looked up under the folder name, which WEB_DIRECTORY serves"


def test_no_file_is_large_and_embedded_weights_stay_small() -> None:
    folders = (*PACKAGES, "docs", "tests", "tools", "web", "workflows")
    assert [path for folder in folders for path in files_below(folder) if path.stat().st_size > 10 * MEGABYTE] == []
    embedded = [path.stat().st_size for path in files_below("core/weights/embedded")]
    assert sum(embedded) <= 40 * MEGABYTE
    assert max(embedded) <= 8 * MEGABYTE


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/gpu.md", "docs/training.md", "docs/sample/CREDITS.md"]
)
def test_every_local_link_of_a_page_leads_somewhere(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []


def test_the_readme_gives_the_commands_of_the_makefile() -> None:
    readme, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    assert "\n    make demo\n" in readme and "\n    make test\n" in readme
    assert [target for target in re.findall(r"make ([a-z]+(?:-[a-z]+)*)", readme) if f"\n{target}:" not in makefile] == []
