"""The coarse restorers: DiffBIR's published SwinIR files, ours, or the embedded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import BadValueError, WeightsError
from ..methods.pre_restore import PreRestorer
from ..models.offload import place
from ..models.swinir import SwinIR, SwinIRConfig, derived_shapes
from ..runtime import DTYPES, current_host
from . import embedded
from .configs import shipped_config
from .files import NetworkFile, build_network, require_exact
from .locations import chosen_file, find_files
from .students import read_student

KIND = "swinir"
FOLDER = "swinir"
PUBLISHED = f"{FOLDER}/general_swinir_v1.safetensors"


def swinir_choices() -> list[str]:
    """What the weights widget of Pre-Restore offers: auto, embedded, then the files in `kintsugi/swinir`."""
    return ["auto", "embedded", *(name for name in find_files("kintsugi") if name.startswith(f"{FOLDER}/"))]


def load_swinir(weights: str = "auto", dtype: str = "auto") -> PreRestorer:
    """The restorer on the host's device. weights: a name of swinir_choices(); `auto` is the published general one where it is
    there, else embedded. dtype: `auto` (the host's), fp32, bf16, fp16. Raises WeightsError."""
    restorer = read_swinir(chosen_file("the pre-restorer", weights, PUBLISHED, embedded.SWINIR))
    return replace(restorer, network=place(restorer.network, DTYPES.get(dtype, current_host().dtype)))


def read_swinir(path: Path) -> PreRestorer:
    """The restorer in a file, float32: bare tensors of the published size, or ours with a configuration in the metadata."""
    file = read_student(path, KIND)
    # The general restorer was saved by a data-parallel wrapper.
    bare = {name.removeprefix("module."): tensor for name, tensor in file.tensors.items()}
    network = swinir_of(NetworkFile(bare, file.config.get(KIND) or shipped_config(KIND), file.where))
    return PreRestorer(network, file.config.get("border", 0))


def swinir_of(file: NetworkFile) -> SwinIR:
    """The network of these tensors, which may leave out what follows from the configuration. Raises WeightsError."""
    try:
        config = SwinIRConfig(**file.config)
    except (TypeError, BadValueError) as error:
        raise WeightsError(f"its configuration is not that of a coarse restorer: {error}", where=file.where) from error
    derived = derived_shapes(config)
    stored = {name: tensor for name, tensor in file.tensors.items() if name in derived}
    require_exact({name: derived[name] for name in stored}, stored, file.where)
    learned = {name: tensor for name, tensor in file.tensors.items() if name not in derived}
    return build_network(lambda: SwinIR(config), learned, file.where)
