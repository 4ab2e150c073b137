"""Kintsugi: generative image restoration as ComfyUI nodes and as a headless library.

In ComfyUI this file is the pack; from pip it is the package `kintsugi`. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .headless.api import restore, run, unload_models

__all__ = ["restore", "run", "unload_models"]
__version__ = "0.1.0"
WEB_DIRECTORY = "web"

_NODE_MAPPINGS = ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS")


def __getattr__(name: str) -> Any:
    """The node mappings and the Python API, made at first use so that `kintsugi --help` need not import torch."""
    if name in __all__:
        from .headless import api

        return getattr(api, name)
    if name not in _NODE_MAPPINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .nodes import catalogue, comfy_host

    comfy_host.install_when_inside_comfyui()
    return getattr(catalogue, name)
