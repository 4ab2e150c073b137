"""InstantIR's Aggregator from its file, in published names; a bare file is of SDXL's size."""

from __future__ import annotations

from pathlib import Path

import torch

from ..models.aggregator import SHARED_WIDTH, Aggregator
from ..models.mini import build_unet
from .configs import shipped_config
from .files import build_network
from .instantir_layouts import require_part, require_widths
from .students import read_student

KIND = "aggregator"


def read_aggregator(path: Path, dtype: torch.dtype) -> Aggregator:
    """The network in dtype on the CPU. The metadata of a file of ours names the U-Net that it is the encoder of, and shared_width where
    it is not the published one. Raises WeightsError naming file, tensor, expected and found, and telling ControlNets and encoders of
    another U-Net apart."""
    file = read_student(path, KIND)
    require_part("Aggregator", file.tensors, file.where)
    config = file.config.get("unet") or shipped_config("sdxl-unet")
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    require_widths(shapes, config["block_out_channels"], "its configuration" if "unet" in file.config else "SDXL base", file.where)
    shared_width = file.config.get("shared_width", SHARED_WIDTH)
    return build_network(lambda: Aggregator(build_unet(config), shared_width=shared_width), file.tensors, file.where, dtype)
