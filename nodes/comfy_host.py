"""ComfyUI as the host. The only file that touches ComfyUI's modules, and only when ComfyUI is the program that imports us."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..core.folders import Folders
from ..core.runtime import LocalHost, MakesPicture, Progress, best_dtype, set_default_host

log = logging.getLogger("kintsugi")

MODELS_KIND = "kintsugi"
PREVIEW_SIDE = 512


def inside_comfyui() -> bool:
    """True when ComfyUI itself imports the pack: its modules are loaded before any pack."""
    return "folder_paths" in sys.modules and "comfy" in sys.modules


def install_when_inside_comfyui() -> None:
    """Register our models folder and make ComfyUI the default host. Elsewhere, and on a foreign `folder_paths`, nothing."""
    if not inside_comfyui():
        return
    folder_paths: Any = sys.modules["folder_paths"]
    try:
        folder_paths.add_model_folder_path(MODELS_KIND, str(Path(folder_paths.models_dir) / MODELS_KIND))
    except (AttributeError, TypeError) as error:
        log.warning("This ComfyUI's folder_paths is of an unknown form (%s); running with Kintsugi's own folders.", error)
        return
    set_default_host(comfy_host)


def comfy_host() -> ComfyHost:
    """A host with ComfyUI's device, folders and choice of metadata as they are now."""
    device = _model_management().get_torch_device()
    options = importlib.import_module("comfy.cli_args").args
    return ComfyHost(
        device=device,
        dtype=best_dtype(device),
        folders=comfy_folders(sys.modules["folder_paths"]),
        stores_workflows=not options.disable_metadata,
    )


def comfy_folders(folder_paths: Any) -> Folders:
    """ComfyUI's folders, every kind of model with all of its search paths."""
    return Folders(
        input=Path(folder_paths.get_input_directory()),
        output=Path(folder_paths.get_output_directory()),
        temp=Path(folder_paths.get_temp_directory()),
        models=Path(folder_paths.models_dir),
        model_paths={kind: tuple(map(Path, entry[0])) for kind, entry in folder_paths.folder_names_and_paths.items()},
    )


class ComfyHost(LocalHost):
    """Device, progress bar and cancel button of the ComfyUI we run in."""

    def progress(self, total: int, label: str) -> Progress:
        return ComfyProgress(total, self)

    def check_interrupted(self) -> None:
        """Raises ComfyUI's own exception, which its executor expects."""
        _model_management().throw_exception_if_processing_interrupted()


class ComfyProgress:
    """The green bar of a node, with a preview picture where there is one."""

    def __init__(self, total: int, host: ComfyHost) -> None:
        self._total, self._done, self._host = total, 0, host
        self._bar = importlib.import_module("comfy.utils").ProgressBar(total)

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self._host.check_interrupted()
        self._done += steps
        shown = None if preview is None else ("JPEG", preview_picture(preview()), PREVIEW_SIDE)
        self._bar.update_absolute(self._done, self._total, shown)


def preview_picture(picture: Tensor) -> Image.Image:
    """An 8-bit picture of a tensor [H, W, 3] in 0..1."""
    pixels = picture.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.numpy())


def _model_management() -> Any:
    return importlib.import_module("comfy.model_management")
