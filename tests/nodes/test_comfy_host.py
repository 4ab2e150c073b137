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
from kintsugi.core.models.offload import place, spared
from kintsugi.core.weights.locations import find_files
from kintsugi.nodes import comfy_host
from torch import nn

MODULES = ("folder_paths", "comfy", "comfy.utils", "comfy.model_management", "comfy.model_patcher", "comfy.cli_args")


class InterruptProcessingException(Exception):  # noqa: N818
    pass


class Bar:
    def __init__(self, total: int) -> None:
        self.calls: list[tuple[int, int, Any]] = []

    def update_absolute(self, value: int, total: int, preview: Any = None) -> None:
        self.calls.append((value, total, preview))


class Patcher:
    """What ComfyUI's ModelPatcher tells of a model that nothing is patched on."""

    def __init__(self, model: nn.Module, load_device: torch.device, offload_device: torch.device) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


class Management(ModuleType):
    """Loads what it is asked for, sends it away again when told, and computes in float32 unless told otherwise."""

    interrupted = False
    told: torch.dtype | None = None

    def __init__(self) -> None:
        super().__init__("comfy.model_management")
        self.loaded: list[Any] = []
        self.vram_state = SimpleNamespace(name="NORMAL_VRAM")

    def get_torch_device(self) -> torch.device:
        return torch.device("cpu")

    unet_offload_device = get_torch_device

    def unet_dtype(self, device: torch.device, supported_dtypes: list[torch.dtype]) -> torch.dtype:
        return self.told or supported_dtypes[0]

    def minimum_inference_memory(self) -> float:
        return 0.0

    def throw_exception_if_processing_interrupted(self) -> None:
        if self.interrupted:
            raise InterruptProcessingException

    def load_models_gpu(self, models: list[Any]) -> None:
        for model in models:
            model.partially_load(model.load_device)
            self.loaded.append(model)

    def free_memory(self, size: float, device: torch.device) -> list[Any]:
        while self.loaded:
            self.loaded.pop().detach()
        return []


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
    modules["comfy.model_management"] = Management()
    modules["comfy.model_patcher"].ModelPatcher = Patcher  # type: ignore[attr-defined]
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


def test_no_preview_is_made_where_comfyui_shows_none(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    options: Any = comfyui["comfy.cli_args"].args  # type: ignore[attr-defined]
    progress = runtime.current_host().progress(2, "Steps")
    options.preview_method, options.preview_size = SimpleNamespace(value="none"), 256
    progress.advance(preview=lambda: pytest.fail("a preview was made"))
    options.preview_method = SimpleNamespace(value="auto")
    progress.advance(preview=lambda: torch.zeros(4, 6, 3))
    assert [shown and shown[2] for *_, shown in progress._bar.calls] == [None, 256]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "told", "expected"),
    [
        ({}, None, (torch.float32, None, None)),
        ({"fp32_vae": True}, torch.bfloat16, (torch.bfloat16, torch.float32, None)),
        ({"force_fp16": True, "fp16_vae": True}, None, (torch.float16, torch.float16, None)),
        ({"bf16_text_enc": True}, torch.float8_e4m3fn, (torch.float32, None, torch.bfloat16)),
    ],
)
def test_comfyuis_dtypes_reach_our_networks(
    comfyui: dict[str, ModuleType], options: dict[str, bool], told: torch.dtype | None, expected: tuple[torch.dtype | None, ...]
) -> None:
    vars(comfyui["comfy.cli_args"].args).update(options)  # type: ignore[attr-defined]
    comfyui["comfy.model_management"].told = told  # type: ignore[attr-defined]
    host = comfy_host.comfy_host()
    assert (host.dtype, host.vae_dtype, host.text_dtype) == expected


def test_lowvram_makes_groups_of_what_is_not_offloaded(comfyui: dict[str, ModuleType]) -> None:
    management: Any = comfyui["comfy.model_management"]
    assert not comfy_host.comfy_host().spares_memory
    management.vram_state = SimpleNamespace(name="LOW_VRAM")
    with runtime.using_host(comfy_host.comfy_host()):
        assert (spared("none"), spared("model")) == ("group", "model")


def test_a_network_that_was_sent_away_comes_back_when_a_part_of_it_is_called(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    management: Any = comfyui["comfy.model_management"]
    network = place(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.float32)
    (held,) = management.loaded
    assert held.loaded_size() == held.model_size() == 4 * (3 * 4 + 4 + 4 * 2 + 2)
    expected = network(torch.ones(1, 3))
    management.free_memory(1e30, torch.device("cpu"))
    assert (held.loaded_size(), management.loaded) == (0, [])
    network[1](torch.ones(1, 4))
    assert management.loaded == [held] and held.loaded_size() == held.model_size()
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network(torch.ones(1, 3)), expected)


def test_a_network_that_nobody_has_any_more_is_not_kept(comfyui: dict[str, ModuleType]) -> None:
    comfy_host.install_when_inside_comfyui()
    place(nn.Linear(3, 4), torch.float32)
    comfyui["comfy.model_management"].loaded.clear()  # type: ignore[attr-defined]
    assert not comfy_host._held


def test_networks_stay_where_comfyuis_memory_management_is_unknown(
    comfyui: dict[str, ModuleType], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Management, "load_models_gpu")
    for _ in range(2):
        with runtime.using_host(comfy_host.comfy_host()):
            place(nn.Linear(3, 4), torch.float32)
    assert [record.message for record in caplog.records] == [
        "This ComfyUI manages memory in an unknown way (no load_models_gpu): what Kintsugi loads stays on the device."
    ]


def test_an_unknown_folder_paths_is_left_alone(comfyui: dict[str, ModuleType]) -> None:
    del comfyui["folder_paths"].add_model_folder_path
    before = runtime._default_host
    comfy_host.install_when_inside_comfyui()
    assert runtime._default_host is before
