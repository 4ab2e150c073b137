"""One model per safetensors file, its configuration in the file's metadata; read strictly, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..file_names import written_whole

METADATA_KEY = "kintsugi"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class NetworkFile:
    """A network as its file holds it. config: what the class is built from; where: the file, for messages."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    where: str


def write_weights(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype | None = torch.float16) -> None:
    """Floating tensors are stored as dtype, or as they are where that is None; config (JSON) travels in the metadata under
    `kintsugi`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: _stored(tensor, dtype) for name, tensor in tensors.items()}
    with written_whole(path) as draft:
        save_file(stored, draft, metadata={METADATA_KEY: json.dumps(config)})


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()


def read_weights(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name and the configuration ({} when the file has none). WeightsError when it is no safetensors file.

    prefix: only tensors whose name begins so are read, and named without it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            wanted = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (safe_open is no mapping)
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in wanted}
    except FileNotFoundError as error:
        raise WeightsError("there is no such file.", where=str(path), way_out="Put it there, or choose `embedded`.") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot be read as safetensors ({error}).",
            where=str(path),
            way_out="If it is a pickle (.ckpt, .pt, .bin), convert it with `kintsugi convert`; if it was cut off, copy it again.",
        ) from error
    return tensors, configuration_in(metadata, str(path))


def configuration_in(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """The configuration among a file's metadata, {} when there is none. Raises WeightsError for one that is no JSON object."""
    try:
        config = json.loads(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise WeightsError(f"its configuration is no JSON: {error}.", where=where, way_out="Copy the file again.") from error
    if not isinstance(config, dict):
        raise WeightsError("its configuration is no JSON object.", where=where, way_out="Copy the file again.")
    return config


def build_network(build: Callable[[], Network], tensors: dict[str, Tensor], where: str, dtype: torch.dtype = torch.float32) -> Network:
    """build() with exactly these tensors in dtype, in evaluation mode; its own random start is never computed.

    Buffers that belong to the class and to no file (position tables) keep the values build() gave them. Raises WeightsError.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    load_strictly(network, {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, where)
    return network.eval()


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Make these tensors the module's own, which must have exactly these names and shapes; otherwise WeightsError naming
    the first faults."""
    require_exact({name: tensor.shape for name, tensor in module.state_dict().items()}, tensors, where)
    module.load_state_dict(tensors, assign=True)


def require_exact(expected: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError naming the first tensors that are missing, unknown or of another shape than expected."""
    require_shapes(expected, {name: tensor.shape for name, tensor in tensors.items()}, where)


def require_shapes(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], where: str) -> None:
    """require_exact() for tensors whose shapes are known otherwise."""
    faults = [f"tensor {name} is missing" for name in expected if name not in found]
    faults += [f"tensor {name} is unknown" for name in found if name not in expected]
    faults += [
        f"tensor {name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if faults:
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        raise WeightsError("; ".join(faults[:3]) + more + ".", where=where, way_out="The file is of another model or another size.")
