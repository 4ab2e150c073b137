"""The published priors that restorers stand on: where their parts lie and how each is read.

A base is a diffusers folder, or a single file read by configurations that ship here. Its parts may lie apart: a checkpoint
without VAE takes that of the family's usual name, and so do text encoders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from ..diffusion import NoiseSchedule, flow_schedule
from ..errors import MissingPackageError, WeightsError
from ..models.prompt import PromptEncoder
from ..runtime import current_host
from .diffusers_folders import (
    find_diffusers_folders,
    find_network_folders,
    find_tokenizer_folders,
    has_network,
    read_config,
    read_denoiser_folder,
    require_folder_of,
)
from .families import Family, family_of
from .files import NetworkFile
from .gguf_files import SUFFIX, is_gguf
from .locations import SAFETENSORS_SUFFIXES, find_files, find_weights
from .nf4 import Form, is_quantised
from .schedules import schedule_at
from .single_files import denoiser_shapes, read_denoiser, require_file_of
from .text_encoders import LazyPromptEncoder, has_text_encoders, prompt_encoder
from .text_networks import TOKENIZERS
from .vaes import holds_vae, read_vae_network

log = logging.getLogger("kintsugi")

FOLDER_KINDS = ("diffusers", "checkpoints", "diffusion_models", "kintsugi")
FILE_KINDS = ("checkpoints", "diffusion_models")
SUFFIXES = (*SAFETENSORS_SUFFIXES, SUFFIX)

Places = dict[str, Path]


class Base(Protocol):
    """A published prior in the models folder, read part by part and only when asked."""

    @property
    def family(self) -> str:
        """A name in FAMILIES."""

    @property
    def name(self) -> str:
        """Its place below the models folder."""

    def denoiser(self) -> NetworkFile:
        """The transformer or U-Net, diffusers names."""

    def vae(self) -> NetworkFile:
        """The autoencoder, diffusers names."""

    def prompt_encoder(self) -> PromptEncoder | None:
        """None where the base has no text encoders."""

    def schedule(self) -> NoiseSchedule | None:
        """What the denoiser was trained with; None for families of one-step methods, which bring their own."""

    @property
    def stored(self) -> Form:
        """The form that the denoiser's weights are stored in."""


def base_choices(quantised: bool = False) -> list[str]:
    """Names of the diffusers folders and single files in the models folders that a base can be read from. quantised: GGUF files too."""
    return [name for name, place in _places().items() if quantised or not is_gguf(place)]


def find_base(family: str, name: str = "auto") -> Base:
    """The base of that name (`diffusers/<folder>`, `checkpoints/<file>`), or what `auto` finds of the family.

    `auto` takes the places people usually call so, else the only place whose tensors are of the family. Raises WeightsError
    when there is none or several, BadValueError for a family that is none.
    """
    found = search_base(family, name)
    if found is None:
        searched = dict.fromkeys(folder for kind in (*FOLDER_KINDS, "vae") for folder in current_host().folders.of_models(kind))
        raise WeightsError(
            f"found nothing of the prior {family}, searched {', '.join(str(folder) for folder in searched)}.",
            way_out=family_of(family).remedy,
        )
    return found


def search_base(family: str, name: str = "auto") -> Base | None:
    """find_base(), or None where `auto` finds no part of the family. Raises WeightsError and BadValueError as it does."""
    kind, places = family_of(family), _places()
    everywhere = {**places, **_vae_places()}
    denoiser = _denoiser_place(kind, places) if name == "auto" else _named(name, places)
    own = [denoiser] if denoiser else []
    vae = next((place for place in (*own, *_usual(kind.usual_vaes, everywhere)) if holds_vae(place)), None)
    main = denoiser or vae
    if main is None:
        return None
    found = _FoundBase(kind, _name_of(main, everywhere), denoiser, vae, _prompt_encoder(kind, own, places))
    log.info("Prior %s: %s.", family, found.name)
    return found


def _prompt_encoder(kind: Family, own: Iterable[Path], places: Places) -> LazyPromptEncoder | None:
    """Over the base's own text encoders, those of a place of a usual name, or single files of one encoder each."""
    tokenizers = next(iter(_usual(kind.usual_texts, _tokenizer_places())), None)
    place = next((place for place in (*own, *_usual(kind.usual_texts, places)) if has_text_encoders(place, kind.name)), None)
    if place is not None:
        return prompt_encoder(place, kind.name, tokenizers)
    files = {f"text_encoders/{name}": path for name, path in find_files("text_encoders").items()}
    parts = [found[0] for patterns in kind.usual_text_files if (found := _usual(patterns, files))]
    return prompt_encoder(parts[0], kind.name, tokenizers, parts[1]) if len(parts) == 2 else None


@dataclass(frozen=True)
class _FoundBase:
    """A base whose parts lie at those places; None for a part that is nowhere."""

    kind: Family
    name: str
    denoiser_place: Path | None
    vae_place: Path | None
    encoder: LazyPromptEncoder | None

    @property
    def family(self) -> str:
        return self.kind.name

    def denoiser(self) -> NetworkFile:
        place = self._require(self.denoiser_place, f"no {self.kind.network}")
        file = read_denoiser_folder(place, self.kind) if place.is_dir() else read_denoiser(place, self.kind)
        if self.kind.is_flow and not file.config.get("guidance_embeds"):
            log.info("%s: a FLUX.1-schnell, which is told no guidance scale; any is ignored.", self.name)
        return file

    def vae(self) -> NetworkFile:
        return read_vae_network(self._require(self.vae_place, "no VAE"), self.kind.vae_config)

    def prompt_encoder(self) -> PromptEncoder | None:
        return self.encoder

    def schedule(self) -> NoiseSchedule | None:
        """Raises WeightsError for a denoiser of another family, which a sampler would notice only at its first step."""
        if self.kind.betas is None and not self.kind.is_flow:
            return None
        if self.denoiser_place is not None:
            require = require_folder_of if self.denoiser_place.is_dir() else require_file_of
            require(self.denoiser_place, self.kind)
        return flow_schedule() if self.kind.betas is None else schedule_at(self.denoiser_place, self.kind.betas)

    @property
    def stored(self) -> Form:
        place = self.denoiser_place
        if place is None or is_gguf(place):
            return "whole" if place is None else "gguf"
        folder = place / self.kind.component
        return "nf4" if has_network(folder) and is_quantised(read_config(folder)) else "whole"

    def _require(self, place: Path | None, what: str) -> Path:
        if place is None:
            raise WeightsError(f"has {what} of the prior {self.family}.", where=self.name, way_out=self.kind.remedy)
        return place


def _places() -> Places:
    """Every folder and file that may hold a denoiser, by `<kind>/<name>`; nothing is opened."""
    folders = {f"{kind}/{name}": path for kind in FOLDER_KINDS for name, path in find_diffusers_folders(kind).items()}
    files = {f"{kind}/{name}": path for kind in FILE_KINDS for name, path in find_files(kind, SUFFIXES).items()}
    return {**{name: path for name, path in files.items() if not _is_below(path, folders.values())}, **folders}


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(folder in path.parents for folder in folders)


def _vae_places() -> Places:
    """VAEs by themselves: files of the kind `vae`, and folders of one network there and in our own folder."""
    files = {f"vae/{name}": path for name, path in find_files("vae").items()}
    folders = {f"{kind}/{name}": path for kind in ("vae", "kintsugi") for name, path in find_network_folders(kind).items()}
    return {**files, **folders}


def _tokenizer_places() -> Places:
    """Folders with the tokenizers that text encoders in single files need, whether or not they have networks."""
    return {f"{kind}/{name}": path for kind in FOLDER_KINDS for name, path in find_tokenizer_folders(kind, TOKENIZERS).items()}


def _usual(patterns: Iterable[str], places: Places) -> list[Path]:
    """Places in the order of the patterns that their names fit."""
    return [place for pattern in patterns for name, place in places.items() if fnmatchcase(name.lower(), pattern)]


def _denoiser_place(kind: Family, places: Places) -> Path | None:
    """What `auto` takes: a place of a usual name, else the only one of the family."""
    usual = [place for place in _usual(kind.usual, places) if place.is_file() or has_network(place / kind.component)]
    if usual:
        return usual[0]
    fitting = {name: place for name, place in places.items() if _is_of(kind, place)}
    if len(fitting) > 1:
        raise WeightsError(f"several places hold the prior {kind.name}: {', '.join(fitting)}.", way_out="Choose one of them by name.")
    return next(iter(fitting.values()), None)


def _is_of(kind: Family, place: Path) -> bool:
    """Whether the place holds a denoiser of the family; what cannot be read is passed over and said in the log."""
    try:
        if place.is_dir():
            return has_network(place / kind.component) and kind.has_config(read_config(place / kind.component))
        return (kind.is_quantised or not is_gguf(place)) and kind.has_tensors(denoiser_shapes(place))
    except (WeightsError, MissingPackageError) as error:
        log.warning("Passed over while looking for %s: %s", kind.name, error)
        return False


def _named(name: str, places: Places) -> Path:
    if name in places:
        return places[name]
    kind, _, below = name.partition("/")
    if kind in FILE_KINDS and Path(below).suffix:
        return find_weights(kind, below)
    raise WeightsError(f"no prior is named {name!r}.", way_out=f"Found: {', '.join(places) or 'none'}. Choose one of them, or auto.")


def _name_of(place: Path, places: Places) -> str:
    return next(name for name, path in places.items() if path == place)
