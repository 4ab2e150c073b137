"""Every node that runs without ComfyUI: the pack's own and the stock ones under ComfyUI's class names."""

from __future__ import annotations

from ..core.graph import stock_nodes
from ..core.graph.registry import Registry
from ..nodes import catalogue


def full_registry() -> Registry:
    """The registry that run, restore, batch and `kintsugi nodes` use."""
    return Registry(
        {**stock_nodes.NODE_CLASS_MAPPINGS, **catalogue.NODE_CLASS_MAPPINGS},
        {**stock_nodes.NODE_DISPLAY_NAME_MAPPINGS, **catalogue.NODE_DISPLAY_NAME_MAPPINGS},
    )
