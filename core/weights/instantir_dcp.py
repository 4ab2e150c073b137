"""InstantIR's DCP from its file: Resampler and decoupled attentions, their sizes told by the tensors, and in files of ours the encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..models.dcp import DCP
from ..models.resampler import ResamplerConfig
from .files import NetworkFile, build_network
from .instantir_layouts import DCP_CONTAINERS, require_part
from .students import Student, read_student

KIND = "dcp"
ENCODER = "encoder."
# Width of a head, which no tensor tells, and of SDXL's time embedding, for a file without the layers that would tell it.
DIM_HEAD = 64
TIME_WIDTH = 1280

_INDEX = re.compile(r"ip_adapter\.(\d+)\.")
_TIMED = re.compile(r"ip_adapter\.\d+\.ln_[kv]_ip\.linear\.weight")
_HALF = "The file is not whole: copy it again."
_LAYER = re.compile(r"image_proj\.layers\.(\d+)\.")


@dataclass(frozen=True)
class DcpFile:
    """dcp: the networks; encoder: the image encoder in the same file, or None."""

    dcp: DCP
    encoder: NetworkFile | None


def read_dcp(path: Path, dtype: torch.dtype) -> DcpFile:
    """The DCP of a published file, nested or flat, or of one of ours, in dtype on the CPU.

    Its metadata may name dim_head, and the image encoder's configuration. Time-adaptive layers that are missing are zero, as before
    their training. Raises WeightsError naming file, tensor, expected and found.
    """
    file = read_student(path, KIND)
    require_part("DCP", file.tensors, file.where)
    encoder = _encoder_in(file)
    tensors = {_canonical(name): tensor for name, tensor in file.tensors.items()}
    sizes = _Sizes(tensors, file.where)
    config, widths, time_width = sizes.resampler(file.config.get("dim_head", DIM_HEAD)), sizes.widths(), sizes.time_width()
    tensors = {**_at_rest(widths, time_width, tensors), **tensors}
    return DcpFile(build_network(lambda: DCP(widths, time_width, config), tensors, file.where, dtype), encoder)


def _encoder_in(file: Student) -> NetworkFile | None:
    """The image encoder's tensors, taken out of the file's, with their configuration."""
    names = [name for name in file.tensors if name.startswith(ENCODER)]
    config: Any = file.config.get("encoder")
    if not names:
        return None
    if not isinstance(config, dict):
        raise WeightsError("has an image encoder without its configuration.", where=file.where, way_out="Export the file again.")
    return NetworkFile({name.removeprefix(ENCODER): file.tensors.pop(name) for name in names}, config, file.where)


def _canonical(name: str) -> str:
    container = next((container for container in DCP_CONTAINERS if name.startswith(container)), "")
    return DCP_CONTAINERS.get(container, "") + name.removeprefix(container)


def _at_rest(widths: Mapping[int, int], time_width: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the time-adaptive layers that the tensors lack."""
    shapes = {
        f"ip_adapter.{index}.ln_{kind}_ip.linear.{part}": shape
        for index, width in widths.items()
        for kind in "kv"
        for part, shape in (("weight", (2 * width, time_width)), ("bias", (2 * width,)))
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items() if name not in tensors}


@dataclass(frozen=True)
class _Sizes:
    """What the shapes of a DCP's tensors tell."""

    tensors: Mapping[str, Tensor]
    where: str

    def resampler(self, dim_head: int) -> ResamplerConfig:
        _, queries, dim = self._shape("image_proj.latents", 3)
        inner, wide = (self._shape(f"image_proj.layers.0.{name}.weight", 2)[0] for name in ("0.to_q", "1.1"))
        if inner % dim_head:
            raise WeightsError(
                f"its Resampler's attention is {inner} wide, no multiple of heads of {dim_head}.",
                where=self.where,
                way_out="Name the width of a head as dim_head in the file's metadata.",
            )
        return ResamplerConfig(
            dim=dim,
            depth=1 + max(int(match[1]) for name in self.tensors if (match := _LAYER.match(name))),
            dim_head=dim_head,
            heads=inner // dim_head,
            num_queries=queries,
            embedding_dim=self._shape("image_proj.proj_in.weight", 2)[1],
            output_dim=self._shape("image_proj.proj_out.weight", 2)[0],
            ff_mult=wide // dim,
        )

    def widths(self) -> dict[int, int]:
        """Channels of the decoupled attentions by processor index."""
        indices = sorted({int(match[1]) for name in self.tensors if (match := _INDEX.match(name))})
        if not indices:
            raise WeightsError("tensor ip_adapter.<index>.to_k_ip.weight is missing.", where=self.where, way_out=_HALF)
        return {index: self._shape(f"ip_adapter.{index}.to_k_ip.weight", 2)[0] for index in indices}

    def time_width(self) -> int:
        found = next((name for name in self.tensors if _TIMED.fullmatch(name)), None)
        return TIME_WIDTH if found is None else self._shape(found, 2)[1]

    def _shape(self, name: str, dimensions: int) -> torch.Size:
        if name not in self.tensors:
            raise WeightsError(f"tensor {name} is missing.", where=self.where, way_out=_HALF)
        shape = self.tensors[name].shape
        if len(shape) != dimensions:
            raise WeightsError(
                f"tensor {name} is {list(shape)}, expected {dimensions} dimensions.",
                where=self.where,
                way_out="The file is of another model.",
            )
        return shape
