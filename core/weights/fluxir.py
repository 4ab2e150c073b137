"""FluxIR's adapter as it is kept: one safetensors file with its configuration in the metadata, or a folder of diffusers.

Nothing is published; the names are those of models/flux_adapter.py. Metadata: {"kind": "fluxir", "adapter": what FluxAdapter is built
from}; what is not told there is as for FLUX.1-dev at rank 32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import BadValueError, WeightsError
from .diffusers_folders import read_network_folder
from .files import NetworkFile, build_network, write_weights
from .students import read_student

if TYPE_CHECKING:
    from ..models.flux_adapter import FluxAdapter

KIND = "fluxir"


def write_adapter(path: Path, adapter: FluxAdapter, dtype: torch.dtype | None = torch.bfloat16) -> None:
    """Keep the adapter in one file, its weights as dtype (as they are where that is None)."""
    told = {name: value for name, value in adapter.config.items() if not name.startswith("_")}
    write_weights(path, adapter.state_dict(), {"kind": KIND, "adapter": told}, dtype)


def read_adapter(path: Path, dtype: torch.dtype = torch.float32) -> FluxAdapter:
    """The adapter of a file, or of a folder that save_pretrained() wrote, in dtype.

    Raises WeightsError for another kind of file, a configuration that is no adapter's, and the first tensors that are missing, unknown
    or misshapen.
    """
    from ..models.flux_adapter import FluxAdapter

    file = _adapter_folder(path) if path.is_dir() else _adapter_file(path)

    def build() -> FluxAdapter:
        try:
            return FluxAdapter(**file.config)
        except (TypeError, BadValueError) as error:
            raise WeightsError(
                f"its configuration is not that of a FluxIR adapter: {error}", where=file.where, way_out="Choose a file of that method."
            ) from error

    return build_network(build, file.tensors, file.where, dtype)


def _adapter_file(path: Path) -> NetworkFile:
    file = read_student(path, KIND)
    return NetworkFile(file.tensors, file.config.get("adapter", {}), file.where)


def _adapter_folder(path: Path) -> NetworkFile:
    file = read_network_folder(path)
    class_name = file.config.pop("_class_name", None)
    if class_name != "FluxAdapter":
        raise WeightsError(f"holds {class_name}, not FluxAdapter.", where=file.where, way_out="Choose a folder of that method.")
    return file
