"""The one place that opens pickles: a published .pt, .pth, .ckpt or .bin becomes a safetensors file, names and shapes kept."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FileAccessError, WeightsError
from ..file_names import written_whole

log = logging.getLogger("kintsugi")

# Checkpoints of trainers keep the weights under one of these, beside step counts and optimizers. First found, first taken.
WRAPPERS = ("params_ema", "state_dict", "model_state_dict", "params")

_UNSAFE_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True)
class Conversion:
    """What was written: number of tensors, their bytes, and the entries of the pickle that are no weights."""

    tensors: int
    bytes: int
    left_out: list[str]


def convert_pickle(source: Path, target: Path, overwrite: bool = False) -> Conversion:
    """Write the tensors of a pickle as safetensors. Nothing but tensors and plain containers is ever unpickled.

    Raises WeightsError for what is no pickle of tensors (naming what it holds instead), FileAccessError for paths.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    _check_paths(source, target, overwrite)
    content = read_pickle(source)
    weights, left_out = unwrap(content)
    tensors = independent(dict(flatten(weights, source.stem, str(source))))
    if not tensors:
        raise WeightsError("holds no tensors.", where=str(source), way_out="Choose a file of weights.")
    if left_out:
        log.info("%s: left out %s, which are no weights.", source, ", ".join(left_out))
    try:
        with written_whole(target) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", "converted_from": source.name})
    except (SafetensorError, OSError) as error:
        raise FileAccessError(f"cannot be written: {error}.", where=str(target), way_out="Check the free space and the folder.") from error
    return Conversion(len(tensors), sum(tensor.nbytes for tensor in tensors.values()), left_out)


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix != ".safetensors":
        raise FileAccessError("is not the name of a safetensors file.", where=str(target), way_out="End it in .safetensors.")
    if not source.is_file():
        raise FileAccessError("no such file.", where=str(source), way_out="Check the path of the pickle.")
    if target.exists() and not overwrite:
        raise FileAccessError("exists already.", where=str(target), way_out="Choose another name or add --overwrite.")


def read_pickle(source: Path) -> Any:
    """The content of a torch pickle on the CPU, through torch's list of allowed types. Raises WeightsError."""
    _refuse_safetensors(source)
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise _not_a_pickle_of_tensors(source, error) from error


def _refuse_safetensors(source: Path) -> None:
    try:
        with source.open("rb") as file:
            length, first = int.from_bytes(file.read(8), "little"), file.read(1)
    except OSError as error:
        raise FileAccessError(f"cannot be opened: {error}.", where=str(source), way_out="Check the path and its permissions.") from error
    if first == b"{" and length < source.stat().st_size:
        raise WeightsError("is a safetensors file already.", where=str(source), way_out="Use it as it is; there is nothing to convert.")


def _not_a_pickle_of_tensors(source: Path, error: Exception) -> WeightsError:
    unsafe = _UNSAFE_GLOBAL.search(str(error))
    if unsafe:
        return WeightsError(
            f"wants to load {unsafe.group(1)}, which is neither a tensor nor a plain container; it was not run.",
            where=str(source),
            way_out="Weights need no such thing: take the file from its publisher again, or ask for one with tensors alone.",
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"is not a whole pickle of tensors ({reason}).",
        where=str(source),
        way_out="Check that the download is complete and is a .pt, .pth, .ckpt or .bin file.",
    )


def unwrap(content: Any) -> tuple[Any, list[str]]:
    """The weights of a trainer's checkpoint and the names of what lay beside them; other content as it is."""
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return content[key], [str(name) for name in content if name != key]
    return content, []


def flatten(content: Any, bare_name: str, where: str, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of nested containers, names joined by dots; a bare tensor is called `bare_name`.

    Raises WeightsError naming the first entry that is no tensor, and names that two entries share.
    """
    if isinstance(content, Tensor):
        yield prefix or bare_name, content.detach()
        return
    seen: set[str] = set()
    for key, value in _entries(content, where, prefix):
        for name, tensor in flatten(value, bare_name, where, f"{prefix}.{key}" if prefix else str(key)):
            if name in seen:
                raise WeightsError(f"two entries are both called {name}.", where=where, way_out="The file is not a state dict.")
            seen.add(name)
            yield name, tensor


def _entries(content: Any, where: str, prefix: str) -> Iterator[tuple[object, Any]]:
    if isinstance(content, Mapping):
        yield from content.items()
    elif isinstance(content, (list, tuple)):
        yield from enumerate(content)
    else:
        raise WeightsError(
            f"entry {prefix or '(the whole file)'} is a {type(content).__name__}, not a tensor.",
            where=where,
            way_out="Only files of weights can be converted.",
        )


def independent(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Dense tensors with memory of their own, as safetensors wants them: shared and strided ones are copied."""
    owners: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise WeightsError(f"tensor {name} is sparse or quantized.", way_out="Convert a file with dense tensors.")
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in owners and storage.nbytes() == tensor.nbytes and tensor.is_contiguous()
        owners.add(storage.data_ptr())
        result[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    return result
