"""One model per safetensors file, its configuration in the file's metadata; read strictly, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..file_names import written_whole

METADATA_KEY = "kintsugi"


def write_weights(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Floating tensors are stored as dtype; config (JSON) travels in the metadata under `kintsugi`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: _stored(tensor, dtype) for name, tensor in tensors.items()}
    with written_whole(path) as draft:
        save_file(stored, draft, metadata={METADATA_KEY: json.dumps(config)})


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name and the configuration ({} when the file has none). WeightsError when it is no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except FileNotFoundError as error:
        raise WeightsError("there is no such file.", where=str(path), way_out="Put it there, or choose `embedded`.") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot be read as safetensors ({error}).",
            where=str(path),
            way_out="If it is a pickle (.ckpt, .pt, .bin), convert it with `kintsugi convert`; if it was cut off, copy it again.",
        ) from error
    return tensors, json.loads(metadata.get(METADATA_KEY, "{}"))


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Put tensors into a module of exactly these names and shapes; otherwise WeightsError naming the first faults."""
    expected = module.state_dict()
    faults = [f"tensor {name} is missing" for name in expected if name not in tensors]
    faults += [f"tensor {name} is unknown" for name in tensors if name not in expected]
    faults += [
        f"tensor {name} is {list(tensors[name].shape)}, expected {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        raise WeightsError("; ".join(faults[:3]) + more + ".", where=where, way_out="The file is of another model or another size.")
    module.load_state_dict(tensors)
