"""ComfyUI itself is not here; stand-ins of its modules have the functions that contract section 6 lists."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kintsugi.core import runtime
from kintsugi.core.weights.locations import find_files
from kintsugi.nodes import comfy_host

MODULES = ("folder_paths", "comfy", "comfy.utils", "comfy.model_management", "comfy.cli_args")


class InterruptProcessingException(Exception):  # noqa: N818
    pass


class Bar:
    def __init__(self, total: int) -> None:
        self.calls: list[tuple[int, int, Any]] = []

    def update_absolute(self, value: int, total: int, preview: Any = None) -> None:
        self.calls.append((value, total, preview))


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    modules = {name: ModuleType(name) for name in MODULES}
    paths: Any = modules["folder_paths"]
    paths.models_dir = str(tmp_path / "models")
    paths.folder_names_and_paths = {"vae": ([str(tmp_path / "models/vae"), str(tmp_path / "disk/vae")], {".safetensors"})}

    def add_model_folder_path(kind: str, folder: str, is_default: bool = False) -> None:
        paths.folder_names_and_paths.setdefault(kind, ([], set()))[0].append(folder)

    paths.add_model_folder_path = add_model_folder_path
    for kind in ("input", "output", "temp"):
        setattr(paths, f"get_{kind}_directory", lambda kind=kind: str(tmp_path / kind))
    management: Any = modules["comfy.model_management"]
    management.get_torch_device = lambda: torch.device("cpu")
    management.interrupted = False

    def check() -> None:
        if management.interrupted:
            raise InterruptProcessingException

    management.throw_exception_if_processing_interrupted = check
    modules["comfy.utils"].ProgressBar = Bar  # type: ignore[attr-defined]
    modules["comfy.cli_args"].args = SimpleNamespace(disable_metadata=False)  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(runtime, "_default_host", runtime._default_host)
    token = runtime._host.set(None)
    yield modules
    runtime._host.reset(token)


def test_outside_comfyui_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runtime._default_host
    comfy_host.install_when_inside_comfyui()
    assert runtime._default_host is before


def test_inside_comfyui_its_device_and_folders_are_ours(comfyui: dict[str, ModuleType], tmp_path: Path) -> None:
    comfy_host.install_when_inside_comfyui()
    host = runtime.current_host()
    assert (host.device, host.dtype, host.micro_batch) == (torch.device("cpu"), torch.float32, 1)
    assert (host.folders.input, host.folders.output) == (tmp_path / "input", tmp_path / "output")


def test_weights_are_found_in_every_folder_that_comfyui_knows(comfyui: dict[str, ModuleType], tmp_path: Path) -> None:
    comfy_host.install_when_inside_comfyui()
    for path in (tmp_path / "disk/vae/a.safetensors", tmp_path / "models/kintsugi/gendr/b.safetensors"):
        path.parent.mkdir(parents=True)
        path.touch()
    assert list(find_files("vae")) == ["a.safetensors"]
    assert list(find_files("kintsugi/gendr")) == ["b.safetensors"]


def test_pictures_carry_no_workflow_when_comfyui_writes_none(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    assert comfy_host.comfy_host().stores_workflows
    comfyui["comfy.cli_args"].args.disable_metadata = True  # type: ignore[attr-defined]
    assert not comfy_host.comfy_host().stores_workflows


def test_progress_moves_comfyuis_bar_and_shows_the_preview(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    progress = runtime.current_host().progress(3, "Steps")
    progress.advance()
    progress.advance(2, preview=lambda: torch.full((4, 6, 3), 0.5))
    (first, second) = progress._bar.calls  # type: ignore[attr-defined]
    assert first == (1, 3, None)
    assert second[:2] == (3, 3)
    kind, picture, _ = second[2]
    assert (kind, picture.size, picture.getpixel((0, 0))) == ("JPEG", (6, 4), (128, 128, 128))


def test_comfyuis_own_interruption_passes_through(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    comfyui["comfy.model_management"].interrupted = True  # type: ignore[attr-defined]
    with pytest.raises(InterruptProcessingException):
        runtime.current_host().progress(3, "Steps").advance()


def test_an_unknown_folder_paths_is_left_alone(comfyui: dict[str, ModuleType]) -> None:
    del comfyui["folder_paths"].add_model_folder_path
    before = runtime._default_host
    comfy_host.install_when_inside_comfyui()
    assert runtime._default_host is before
