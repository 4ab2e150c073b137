"""Every node of the pack, collected from the node files. Ids are class names; they and widget order never change."""

from __future__ import annotations

from typing import Any

from . import caption, color, degradation, fluxgen, fluxir, instantir, one_step, photo, pre_restore, prior, prompt, quality, regions

NODE_CLASSES: tuple[Any, ...] = (
    *photo.NODES, *pre_restore.NODES, *one_step.NODES, *prior.NODES, *caption.NODES, *prompt.NODES, *instantir.NODES,
    *fluxir.NODES, *fluxgen.NODES, *degradation.NODES, *color.NODES, *quality.NODES, *regions.NODES,
)  # fmt: skip

NODE_CLASS_MAPPINGS: dict[str, type] = {node.__name__: node for node in NODE_CLASSES}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {node.__name__: node.DISPLAY_NAME for node in NODE_CLASSES}
