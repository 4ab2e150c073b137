"""Folders as diffusers writes them: a subfolder per network, each with config.json and safetensors, perhaps in several files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..runtime import current_host
from .families import Family, traits_in_config, wrong_family
from .files import NetworkFile, read_weights
from .locations import PICKLE_SUFFIXES, files_below
from .nf4 import is_quantised, require_bitsandbytes

# Any of these with a config.json makes a folder one of diffusers.
COMPONENTS = ("transformer", "unet", "vae", "text_encoder")
# Published names of a network's weights; the first found is read. The second pair are the same weights stored in half precision.
STEMS = ("diffusion_pytorch_model", "model", "diffusion_pytorch_model.fp16", "model.fp16")
TOKENIZER_CONFIG = "tokenizer_config.json"

# Networks saved before diffusers 0.11 call the parts of their attention so.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def find_diffusers_folders(kind: str) -> dict[str, Path]:
    """Pipelines' folders of a kind by their name below its folder; the first folder of models wins."""
    parts = {Path(name): place for name, place in find_network_folders(kind).items()}
    return {name.parent.as_posix(): place.parent for name, place in parts.items() if name.name in COMPONENTS and name.parent.name}


def find_network_folders(kind: str) -> dict[str, Path]:
    """Folders of one network, those with a config.json, by their name below the kind's folder."""
    return _folders_with(kind, "config.json")


def find_tokenizer_folders(kind: str, parts: tuple[str, ...]) -> dict[str, Path]:
    """Folders with all these tokenizers' subfolders, networks or not, by their name below the kind's folder."""
    tokenizers = {Path(name): place for name, place in _folders_with(kind, TOKENIZER_CONFIG).items()}
    last = {name.parent.as_posix(): place.parent for name, place in tokenizers.items() if name.name == parts[-1]}
    return {name: place for name, place in last.items() if all((place / part / TOKENIZER_CONFIG).is_file() for part in parts)}


def _folders_with(kind: str, file_name: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in current_host().folders.of_models(kind):
        for place in (path.parent for path in files_below(folder, (file_name,)) if path.name == file_name):
            found.setdefault(place.relative_to(folder).as_posix(), place)
    return dict(sorted(found.items()))


def has_network(folder: Path) -> bool:
    """Whether the folder is that of one network."""
    return (folder / "config.json").is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json without what diffusers notes about itself, but for the class's name. Raises WeightsError."""
    content = read_json(folder / "config.json")
    return {name: value for name, value in content.items() if name == "_class_name" or not name.startswith("_")}


def read_json(path: Path) -> dict[str, Any]:
    """The settings of a file in a diffusers folder. Raises WeightsError for what is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot be read as JSON: {error}.", where=str(path), way_out="Copy the folder again.") from error
    if not isinstance(content, dict):
        raise WeightsError("is not a configuration.", where=str(path), way_out="Copy the folder again.")
    return content


def read_network_folder(folder: Path) -> NetworkFile:
    """The network of one folder, whole. Raises WeightsError, for pickles with the way out."""
    config = read_config(folder)
    tensors = {name: tensor for path in weights_files(folder) for name, tensor in read_weights(path)[0].items()}
    return NetworkFile(_with_new_attention_names(tensors), config, str(folder))


def read_denoiser_folder(folder: Path, family: Family) -> NetworkFile:
    """The transformer or U-Net of a pipeline's folder. Raises WeightsError when it has none, or that of another family."""
    require_folder_of(folder, family)
    file = read_network_folder(folder / family.component)
    kept = {name: tensor for name, tensor in file.tensors.items() if name not in family.unused}
    return replace(file, tensors=kept, config=_understood(file.config, family.network))


def require_folder_of(folder: Path, family: Family) -> None:
    """Raise WeightsError when the folder has no denoiser, that of another family, or one quantised in a way that is not read, and
    MissingPackageError where that needs a package; its weights are not opened."""
    place = folder / family.component
    if not has_network(place):
        raise WeightsError(f"has no {family.component} folder with a config.json.", where=str(folder), way_out=family.remedy)
    config = read_config(place)
    if not family.has_config(config):
        raise wrong_family(family, traits_in_config(config), str(place))
    if is_quantised(config) and not family.is_quantised:
        raise WeightsError(f"is quantised, which is not read for {family.name}.", where=str(place), way_out=family.remedy)
    require_bitsandbytes(config, str(place))


def _understood(config: dict[str, Any], class_name: str) -> dict[str, Any]:
    """What the class is built from. PixArt was published when one class stood for many networks, with the settings of them all."""
    import diffusers

    known = signature(getattr(diffusers, class_name)).parameters
    return {name: value for name, value in config.items() if name in known}


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files of a network, in the order of their index where there are several. Raises WeightsError."""
    for stem in STEMS:
        index, whole = _index_of(folder, stem), folder / f"{stem}.safetensors"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _indexed(index)
    pickle = next(files_below(folder, PICKLE_SUFFIXES), None)
    if pickle is not None:
        target = pickle.with_suffix(".safetensors").name
        raise WeightsError(
            f"has a pickle ({pickle.name}) and no safetensors file.",
            where=str(folder),
            way_out=f"Convert it once: kintsugi convert {pickle} {pickle.with_name(target)}",
        )
    raise WeightsError(
        f"has no weights: expected {STEMS[0]}.safetensors.", where=str(folder), way_out="Copy the folder again, with its large files."
    )


def _index_of(folder: Path, stem: str) -> Path:
    """`model.safetensors.index.json`; a variant's name stands before `index` or before `safetensors`, as versions differ."""
    base, _, variant = stem.partition(".")
    names = (f"{stem}.safetensors.index.json", f"{base}.safetensors.index.{variant}.json")
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _indexed(index: Path) -> list[Path]:
    try:
        names: Iterable[str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"is not an index of weights: {error}.", where=str(index), way_out="Copy the folder again.") from error
    paths = [index.parent / Path(name).name for name in dict.fromkeys(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(f"names {', '.join(missing)}, which are missing.", where=str(index), way_out="Copy the missing files.")
    return paths


def _with_new_attention_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not any(name.endswith(".proj_attn.weight") for name in tensors):
        return tensors
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    return name
