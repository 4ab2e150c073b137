"""Networks in GGUF files, their layers quantised in blocks of numbers: read by the package gguf, run by diffusers' own layers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import MissingPackageError, WeightsError
from .families import Shapes
from .files import METADATA_KEY, configuration_in, require_shapes

SUFFIX = ".gguf"

Network = TypeVar("Network", bound=nn.Module)


def is_gguf(path: Path) -> bool:
    """Whether the file is one by its name."""
    return path.suffix.lower() == SUFFIX


def gguf_shapes(path: Path) -> Shapes:
    """The shape of every tensor by its name, as it is once it is no longer quantised. Raises MissingPackageError and WeightsError."""
    return {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in _reader(path).tensors}


def read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, quantised ones as diffusers' GGUFParameter, and the configuration ({} when the file has none).

    Raises MissingPackageError and WeightsError.
    """
    config = _reader(path).get_field(METADATA_KEY)
    metadata = {} if config is None else {METADATA_KEY: str(config.contents())}
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    try:
        tensors = load_gguf_checkpoint(str(path))
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(reason, where=str(path), way_out="Choose a file of another kind, such as Q8_0 or Q4_K_S.") from error
    return tensors, configuration_in(metadata, str(path))


def _reader(path: Path) -> Any:
    if find_spec("gguf") is None:
        raise MissingPackageError(
            "is a GGUF file, which the package gguf reads.", where=str(path), way_out="pip install gguf, or choose a safetensors file."
        )
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise WeightsError(
            f"cannot be read as GGUF ({error}).", where=str(path), way_out="If its download or copy was cut short, fetch it again."
        ) from error


def build_gguf(build: Callable[[], Network], tensors: dict[str, Tensor], where: str, dtype: torch.dtype) -> Network:
    """build() with exactly these tensors, in evaluation mode: quantised layers stay so and compute in dtype. Raises WeightsError."""
    from accelerate import init_empty_weights
    from diffusers.quantizers.gguf.utils import GGUFParameter

    with init_empty_weights(include_buffers=False):
        network = build()
    found = {name: getattr(tensor, "quant_shape", tensor.shape) for name, tensor in tensors.items()}
    require_shapes({name: tensor.shape for name, tensor in network.state_dict().items()}, found, where)
    rest = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if isinstance(tensor, GGUFParameter) and kind == "weight" and isinstance(network.get_submodule(layer), nn.Linear):
            network.set_submodule(layer, _quantised(network.get_submodule(layer), tensor, dtype))
        else:
            rest[name] = _plain(tensor).to(dtype)
    network.load_state_dict(rest, strict=False, assign=True)
    return network.eval()


def _quantised(layer: Any, weight: Any, dtype: torch.dtype) -> nn.Module:
    from diffusers.quantizers.gguf.utils import GGUFLinear

    found = GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, device="meta")
    found.weight = weight
    return found


def _plain(tensor: Tensor) -> Tensor:
    """What belongs to no linear layer is small, and its module knows nothing of quantised numbers."""
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    plain: Tensor = dequantize_gguf_tensor(tensor)
    return plain
