"""Where training pictures come from: drawn scenes, folders, pairs of folders, and tar files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.errors import RecipeError
from ..recipe import DataSettings, SourceSettings
from .base import Source
from .mixture import Mixture


def picture_source(data: DataSettings) -> Mixture:
    """The pictures that a recipe names. Raises RecipeError and FileAccessError."""
    chosen: Sequence[SourceSettings] = data.mix or [data]
    weights = [source.weight for source in data.mix] or [1.0]
    return Mixture([_open(source, data) for source in chosen], weights)


def _open(settings: SourceSettings, data: DataSettings) -> Source:
    from .drawn import DrawnPictures
    from .folders import FolderPictures, PairedPictures
    from .shards import ShardPictures

    if settings.source == "procedural":
        return DrawnPictures(settings.pictures, settings.picture_size, settings.picture_seed)
    folder = _folder(settings, data.root)
    if settings.source == "shards":
        return ShardPictures(folder, settings.first, data.stored_pairs)
    return (PairedPictures if settings.source == "paired" else FolderPictures)(folder, settings.first)


def _folder(settings: SourceSettings, root: Path) -> Path:
    if settings.folder is None:
        raise RecipeError(f"source is `{settings.source}` but no folder is named.", where="data", way_out="Set data.folder=PATH.")
    folder = root / settings.folder
    if not folder.is_dir():
        raise RecipeError(f"there is no folder {folder}.", where="data.folder", way_out="Set data.folder=PATH, or data.root for several.")
    return folder
