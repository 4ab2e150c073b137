"""Where weights lie: the models tree by kind, ComfyUI's extra_model_paths.yaml, and names confined to their folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FileAccessError, WeightsError
from ..folders import Folders
from ..runtime import current_host

log = logging.getLogger("kintsugi")

KINDS = ("checkpoints", "diffusion_models", "diffusers", "vae", "loras", "clip_vision", "text_encoders", "kintsugi")
SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
EXTRA_MODEL_PATHS = "extra_model_paths.yaml"

_LEGACY_KINDS = {"unet": "diffusion_models", "clip": "text_encoders"}
_NOT_KINDS = ("base_path", "is_default")


def find_files(kind: str, suffixes: Iterable[str] = SAFETENSORS_SUFFIXES) -> dict[str, Path]:
    """Files of a kind with those endings, by their name below its folder (`sub/file.safetensors`); the first folder wins."""
    found: dict[str, Path] = {}
    for folder in current_host().folders.of_models(kind):
        for path in files_below(folder, suffixes):
            found.setdefault(path.relative_to(folder).as_posix(), path)
    return dict(sorted(found.items()))


def files_below(folder: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """Files with one of those endings in the folder and below it, hidden folders left out; links are followed once."""
    wanted, seen = tuple(suffixes), set[Path]()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(place, name) for name in sorted(names) if name.lower().endswith(wanted))
        seen.add(real)


def find_weights(kind: str, name: str) -> Path:
    """The safetensors file of that name; raises WeightsError when it is absent, a pickle, or outside the kind's folders."""
    folders = current_host().folders.of_models(kind)
    # Links inside a models folder are its owner's business (large files often lie on another disk); the name is not trusted.
    if Path(name).is_absolute() or Path(name).drive or ".." in Path(name).parts:
        raise WeightsError(f"{name!r} leaves the folder of {kind!r}.", way_out="Choose a file inside that folder.")
    for path in (folder / name for folder in folders):
        if path.is_file():
            return _require_safetensors(path)
    searched = ", ".join(str(folder) for folder in folders)
    raise WeightsError(
        f"no weights named {name!r} of kind {kind!r}, searched {searched}.",
        way_out="Put the file there, choose `embedded`, or see `kintsugi models list`.",
    )


def chosen_file(what: str, weights: str, published: str, embedded: Path) -> Path:
    """The file that a choice of weights means: `auto` (the published file of `kintsugi` where it is there, else the embedded one),
    `embedded`, or a file of `kintsugi` by name. The log says what `auto` took. Raises WeightsError."""
    if weights == "auto":
        weights = _published_or_embedded(what, published)
    return embedded if weights == "embedded" else find_weights("kintsugi", weights)


def _published_or_embedded(what: str, published: str) -> str:
    """Warns of a pickle in the place of the published file."""
    weights = published if published in find_files("kintsugi") else "embedded"
    pickle = find_pickle("kintsugi", published) if weights == "embedded" else None
    if pickle:
        log.warning("%s is a pickle, which is not loaded: kintsugi convert %s %s", pickle, pickle, pickle.with_suffix(".safetensors"))
    log.info("Weights of %s: %s.", what, "the small embedded ones" if weights == "embedded" else weights)
    return weights


def find_pickle(kind: str, name: str) -> Path | None:
    """The pickle that a safetensors file of that name would be converted from, where one lies in its place."""
    places = (folder / name for folder in current_host().folders.of_models(kind))
    return next((pickle for place in places for suffix in PICKLE_SUFFIXES if (pickle := place.with_suffix(suffix)).is_file()), None)


def _require_safetensors(path: Path) -> Path:
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        return path
    target = path.with_suffix(".safetensors").name
    raise WeightsError(
        "only safetensors files are loaded.", where=str(path), way_out=f"Convert it once: kintsugi convert {path.name} {target}"
    )


@dataclass(frozen=True)
class ExtraPaths:
    """One section of an extra_model_paths.yaml: folders by kind, searched before ours when `first`."""

    first: bool
    folders: dict[str, tuple[Path, ...]]


def with_extra_model_paths(folders: Folders, files: Iterable[Path]) -> Folders:
    """The folders with every section of those yaml files added to the search paths."""
    paths = {kind: tuple(folders.of_models(kind)) for kind in KINDS}
    for section in (section for file in files for section in read_extra_model_paths(file)):
        for kind, extra in section.folders.items():
            old = paths.get(kind, (folders.models / kind,))
            joined = (*extra, *old) if section.first else (*old, *extra)
            paths[kind] = tuple(dict.fromkeys(joined))
    return replace(folders, model_paths={**folders.model_paths, **paths})


def read_extra_model_paths(file: Path) -> list[ExtraPaths]:
    """The sections of ComfyUI's extra_model_paths.yaml. Raises FileAccessError for what is unreadable or not of its form.

    `base_path` may hold ~ and $VARIABLES and counts from the file's own folder; every other key is a kind with a path
    per line. The old names `unet` and `clip` mean diffusion_models and text_encoders.
    """
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileAccessError(f"cannot be read: {error}", where=str(file), way_out="Correct or remove the file.") from error
    if document is not None and not isinstance(document, dict):
        raise FileAccessError("has no named sections.", where=str(file), way_out="See ComfyUI's extra_model_paths.yaml.example.")
    return [_read_section(file, name, section) for name, section in (document or {}).items() if section is not None]


def _read_section(file: Path, name: str, section: Any) -> ExtraPaths:
    if not isinstance(section, dict) or any(not isinstance(value, (str, bool, type(None))) for value in section.values()):
        raise FileAccessError(
            f"section {name!r} is not a list of `kind: path` lines.", where=str(file), way_out="Give each kind one path per line."
        )
    base = _expanded(file.parent.absolute(), str(section.get("base_path") or "."))
    folders: dict[str, tuple[Path, ...]] = {}
    for key, value in section.items():
        if key not in _NOT_KINDS and isinstance(value, str):
            kind = _LEGACY_KINDS.get(str(key), str(key))
            lines = (line.strip() for line in value.splitlines())
            folders[kind] = folders.get(kind, ()) + tuple(_expanded(base, line) for line in lines if line)
    return ExtraPaths(first=section.get("is_default") is True, folders=folders)


def _expanded(base: Path, path: str) -> Path:
    return base / Path(os.path.expandvars(path)).expanduser()
