"""ComfyUI as the host. The only file that touches ComfyUI's modules, and only when ComfyUI is the program that imports us."""

from __future__ import annotations

import importlib
import logging
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor, nn

from ..core.folders import Folders
from ..core.module_tensors import is_bound
from ..core.runtime import DTYPES, LocalHost, MakesPicture, Progress, best_dtype, current_host, set_default_host
from .comfy_memory import HeldNetwork, KintsugiNetwork

log = logging.getLogger("kintsugi")

MODELS_KIND = "kintsugi"
NO_PREVIEWS, PREVIEW_SIDE = "none", 512
# ComfyUI's states after --lowvram and --novram.
SMALL_MEMORY = ("LOW_VRAM", "NO_VRAM")
MEMORY_CALLS = ("load_models_gpu", "free_memory", "minimum_inference_memory", "unet_offload_device")

# One per network, whichever node or run asks for it.
_held: WeakKeyDictionary[nn.Module, HeldNetwork] = WeakKeyDictionary()


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


def comfy_host() -> UnmanagedHost:
    """A host with ComfyUI's device, folders and options as they are now."""
    management, options = _model_management(), _options()
    device = management.get_torch_device()
    missing = [name for name in MEMORY_CALLS if not hasattr(management, name)]
    if missing:
        _warn_once(f"This ComfyUI manages memory in an unknown way (no {', '.join(missing)}): what Kintsugi loads stays on the device.")
    kind = UnmanagedHost if missing else ComfyHost
    return kind(
        device=device,
        dtype=compute_dtype(management, options, device),
        folders=comfy_folders(sys.modules["folder_paths"]),
        stores_workflows=not options.disable_metadata,
        vae_dtype=_flagged(options, "vae"),
        text_dtype=_flagged(options, "text_enc"),
        spares_memory=getattr(getattr(management, "vram_state", None), "name", None) in SMALL_MEMORY,
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


def compute_dtype(management: Any, options: Any, device: torch.device) -> torch.dtype:
    """What `auto` means under ComfyUI's options, such as --force-fp16, --bf16-unet and --force-fp32; without any our own choice, where
    ComfyUI finds that the device computes well with it."""
    if not hasattr(management, "unet_dtype"):
        return best_dtype(device)
    first = torch.float16 if getattr(options, "force_fp16", False) else best_dtype(device)
    chosen: torch.dtype = management.unet_dtype(
        device=device, supported_dtypes=[first, *(dtype for dtype in (torch.bfloat16, torch.float16, torch.float32) if dtype != first)]
    )
    if chosen in DTYPES.values():
        return chosen
    _warn_once(f"ComfyUI is told to use {chosen}, which Kintsugi's networks do not compute in; its nodes' auto is {best_dtype(device)}.")
    return best_dtype(device)


def _flagged(options: Any, part: str) -> torch.dtype | None:
    """The dtype that --fp16-vae, --bf16-text-enc and their like ask for; None without one."""
    return next((dtype for name, dtype in DTYPES.items() if getattr(options, f"{name}_{part}", False)), None)


class UnmanagedHost(LocalHost):
    """Device, progress bar and cancel button of the ComfyUI we run in."""

    def progress(self, total: int, label: str) -> Progress:
        return ComfyProgress(total, self)

    def check_interrupted(self) -> None:
        """Raises ComfyUI's own exception, which its executor expects."""
        _model_management().throw_exception_if_processing_interrupted()


class ComfyHost(UnmanagedHost):
    """And its memory: what we hold is in ComfyUI's list of loaded models, which go when others need the room."""

    def hold(self, network: nn.Module) -> None:
        if is_bound(network):
            super().hold(network)
            return
        management = _model_management()
        held = _held.get(network)
        if held is None:
            patcher = importlib.import_module("comfy.model_patcher").ModelPatcher
            empty = patcher(KintsugiNetwork(), self.device, management.unet_offload_device())
            held = _held[network] = HeldNetwork(network, empty, lambda network: current_host().hold(network))
        management.load_models_gpu([held])

    def make_room(self, size: float = math.inf) -> bool:
        """Of main memory none: ComfyUI keeps there what leaves the device."""
        if self.device.type == "cpu":
            return False
        management = _model_management()
        return bool(management.free_memory(size + management.minimum_inference_memory(), self.device))


class ComfyProgress:
    """The green bar of a node, with a preview picture where there is one and ComfyUI shows them."""

    def __init__(self, total: int, host: UnmanagedHost) -> None:
        self._total, self._done, self._host = total, 0, host
        self._bar = importlib.import_module("comfy.utils").ProgressBar(total)

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self._host.check_interrupted()
        self._done += steps
        side = preview_side(_options())
        shown = None if preview is None or side is None else ("JPEG", preview_picture(preview()), side)
        self._bar.update_absolute(self._done, self._total, shown)


def preview_side(options: Any) -> int | None:
    """Pixels along the longer side of previews; None where none are wanted. Newer versions set this anew for every prompt."""
    method = getattr(options, "preview_method", None)
    return None if method is not None and method.value == NO_PREVIEWS else getattr(options, "preview_size", PREVIEW_SIDE)


def preview_picture(picture: Tensor) -> Image.Image:
    """An 8-bit picture of a tensor [H, W, 3] in 0..1."""
    pixels = picture.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.numpy())


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _model_management() -> Any:
    return importlib.import_module("comfy.model_management")


def _options() -> Any:
    return importlib.import_module("comfy.cli_args").args
