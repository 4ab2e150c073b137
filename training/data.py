"""Pictures for training: batch n is a function of the seed and n alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.degradation.pipeline import degrade
from ..core.errors import RecipeError
from ..core.folders import user_data_directory
from ..core.picture_files import PICTURE_SUFFIXES
from .procedural.bank import load_bank
from .recipe import DataSettings, Recipe


class PictureSource(Protocol):
    """Clean pictures to cut crops from."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]."""


class ProceduralPictures:
    """The bank of drawn scenes; drawn at first use and kept in the user's data folder."""

    def __init__(self, settings: DataSettings) -> None:
        self._bank = load_bank(user_data_directory() / "banks", settings.pictures, settings.picture_size, settings.picture_seed)

    def __len__(self) -> int:
        return len(self._bank)

    def picture(self, index: int) -> np.ndarray:
        return self._bank[index]


class FolderPictures:
    """Every picture below a folder, in name order."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not self._paths:
            raise RecipeError(f"no pictures in {folder}.", where="data.folder", way_out="Give a folder with PNG, JPEG, WebP or TIFF files.")

    def __len__(self) -> int:
        return len(self._paths)

    def picture(self, index: int) -> np.ndarray:
        with Image.open(self._paths[index]) as image:
            return np.asarray(image.convert("RGB"))


def picture_source(settings: DataSettings) -> PictureSource:
    """The pictures that a recipe names. Raises RecipeError."""
    if settings.source == "procedural":
        return ProceduralPictures(settings)
    if settings.folder is None:
        raise RecipeError("source is `folder` but data.folder is not set.", where="data", way_out="Set data.folder=PATH.")
    return FolderPictures(settings.folder)


class Batches(Dataset[dict[str, Tensor]]):
    """Item n is the whole n-th batch: high_quality [B, 3, S, S] in 0..1, and low_quality of the same size if degraded."""

    def __init__(self, recipe: Recipe, source: PictureSource) -> None:
        self._recipe, self._source = recipe, source

    def __len__(self) -> int:
        return self._recipe.steps * self._recipe.accumulate

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        data = self._recipe.data
        random = np.random.default_rng([self._recipe.seed, index])
        crops = [
            _random_crop(self._source.picture(int(random.integers(len(self._source)))), data.crop, random)
            for _ in range(self._recipe.batch)
        ]
        clean = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        if data.degradation is None:
            return {"high_quality": clean}
        spoilt = degrade(clean, data.degradation, scale=1, seed=int(random.integers(2**62)), restore_size=True)
        return {"high_quality": clean, "low_quality": spoilt.low_quality}


def _random_crop(picture: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """A crop [size, size, 3], flipped and turned at random; a picture smaller than the crop is enlarged first."""
    height, width = picture.shape[:2]
    if min(height, width) < size:
        factor = size / min(height, width)
        enlarged = Image.fromarray(picture).resize(
            (max(size, round(width * factor)), max(size, round(height * factor))), Image.Resampling.BICUBIC
        )
        picture, (width, height) = np.asarray(enlarged), enlarged.size
    top, left = int(random.integers(height - size + 1)), int(random.integers(width - size + 1))
    crop = np.rot90(picture[top : top + size, left : left + size], int(random.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if random.integers(2) else crop)


def training_batches(recipe: Recipe, first: int) -> DataLoader[dict[str, Tensor]]:
    """Batches first, first + 1, ... in order, made ahead in `data.workers` processes."""
    batches = Batches(recipe, picture_source(recipe.data))
    workers = recipe.data.workers
    return DataLoader(
        batches, batch_size=None, sampler=range(first, len(batches)), num_workers=workers, prefetch_factor=4 if workers else None
    )


def validation_batch(recipe: Recipe, count: int) -> dict[str, Tensor]:
    """`count` crops that training never sees: procedural scenes of another seed, or other crops of the folder."""
    data = recipe.data.model_copy(update={"pictures": count, "picture_seed": recipe.data.picture_seed + 1_000_003})
    held_out = recipe.model_copy(update={"seed": recipe.seed + 1_000_003, "batch": count, "data": data})
    return Batches(held_out, picture_source(data))[0]
