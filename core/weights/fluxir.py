"""FluxIR's adapter as it is kept: one safetensors file with its configuration in the metadata, or a folder of diffusers.

Nothing is published; the names are those of models/flux_adapter.py. Metadata: {"kind": "fluxir", "adapter": what FluxAdapter is built
from}; what is not told there is as for FLUX.1-dev at rank 32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import BadValueError, WeightsError
from ..models.offload import place
from ..runtime import DTYPES, current_host
from . import embedded
from .diffusers_folders import find_network_folders, read_network_folder
from .files import NetworkFile, build_network, write_weights
from .locations import chosen_file, find_files
from .students import read_student

if TYPE_CHECKING:
    from ..models.flux_adapter import FluxAdapter

KIND = "fluxir"
# Where `auto` looks for an adapter: nothing is published, so it is one that somebody trained.
TRAINED = "fluxir/fluxir.safetensors"


def adapter_choices() -> list[str]:
    """What the weights widget offers: auto, embedded, then the files of kintsugi/fluxir and the folders of diffusers there."""
    folders = [name for name in find_network_folders("kintsugi") if name.startswith(f"{KIND}/")]
    files = [name for name in find_files("kintsugi") if name.startswith(f"{KIND}/")]
    return ["auto", "embedded", *folders, *(name for name in files if not name.startswith(tuple(f"{folder}/" for folder in folders)))]


def load_adapter(weights: str = "auto", dtype: str = "auto") -> FluxAdapter:
    """The adapter on the host's device. weights: a name of adapter_choices(); `auto` is kintsugi/fluxir/fluxir.safetensors where it
    is, else embedded. dtype: `auto` (the host's), fp32, bf16, fp16. Raises WeightsError and OutOfMemoryError."""
    chosen = DTYPES.get(dtype, current_host().dtype)
    folder = find_network_folders("kintsugi").get(weights)
    path = folder or chosen_file("FluxIR", weights, TRAINED, embedded.FLUXIR)
    return place(read_adapter(path, chosen), chosen)


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
