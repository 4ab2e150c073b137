"""Pictures for training: batch n is a function of the seed and n alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
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


@dataclass(frozen=True)
class Batch:
    """names: where each crop is from. high_quality, low_quality: [B, 3, S, S] in 0..1. captions: "" where there is none. sizes:
    [B, 6] SDXL's size ids, original height and width, top and left of the crop, S, S. high_latent, low_latent: scaled latents
    [B, C, h, w] of a bank."""

    names: tuple[str, ...]
    high_quality: Tensor
    low_quality: Tensor | None
    captions: tuple[str, ...]
    sizes: Tensor
    high_latent: Tensor | None = None
    low_latent: Tensor | None = None

    @property
    def degraded(self) -> Tensor:
        """low_quality of a recipe that degrades. Raises RecipeError for one that does not."""
        if self.low_quality is None:
            raise RecipeError("this stage needs degraded pictures.", where="data.degradation", way_out="Name a preset, such as mild.")
        return self.low_quality

    def to(self, device: torch.device) -> Batch:
        """The same on that device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()})


class PictureSource(Protocol):
    """Clean pictures to cut crops from."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a person finds the picture by."""

    def picture(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]."""


class ProceduralPictures:
    """The bank of drawn scenes; drawn at first use and kept in the user's data folder."""

    def __init__(self, settings: DataSettings) -> None:
        self._bank = load_bank(user_data_directory() / "banks", settings.pictures, settings.picture_size, settings.picture_seed)

    def __len__(self) -> int:
        return len(self._bank)

    def name(self, index: int) -> str:
        return f"scene {index}"

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

    def name(self, index: int) -> str:
        return str(self._paths[index])

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


class Batches(Dataset[Batch]):
    """Item n is the whole n-th batch of `count` crops, drawn from the seed and n."""

    def __init__(self, data: DataSettings, source: PictureSource, seed: int, count: int) -> None:
        self._data, self._source, self._seed, self._count = data, source, seed, count

    def __getitem__(self, index: int) -> Batch:
        data = self._data
        random = np.random.default_rng([self._seed, index])
        crops = [self._crop(random) for _ in range(self._count)]
        clean = torch.from_numpy(np.stack([crop for _, crop, _ in crops])).permute(0, 3, 1, 2).float() / 255
        spoilt = None
        if data.degradation is not None:
            spoilt = degrade(clean, data.degradation, scale=1, seed=int(random.integers(2**62)), restore_size=True).low_quality
        names, sizes = tuple(name for name, _, _ in crops), torch.tensor([size for _, _, size in crops], dtype=torch.float32)
        return Batch(names, clean, spoilt, ("",) * len(names), sizes)

    def _crop(self, random: np.random.Generator) -> tuple[str, np.ndarray, tuple[int, ...]]:
        index = int(random.integers(len(self._source)))
        crop, sizes = random_crop(self._source.picture(index), self._data.crop, random)
        return f"{self._source.name(index)} at {sizes[2]},{sizes[3]}", crop, sizes


def random_crop(picture: np.ndarray, side: int, random: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """A crop [side, side, 3], flipped and turned at random, and its size ids; a picture smaller than that is enlarged first."""
    original = picture.shape[:2]
    if min(original) < side:
        factor = side / min(original)
        height, width = (max(side, round(length * factor)) for length in original)
        picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (int(random.integers(length - side + 1)) for length in picture.shape[:2])
    crop = np.rot90(picture[top : top + side, left : left + side], int(random.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if random.integers(2) else crop), (*original, top, left, side, side)


def batch_loader(batches: Dataset[Batch], numbers: Iterable[int], workers: int) -> DataLoader[Batch]:
    """The batches of these numbers in order, made ahead in `workers` processes."""
    return DataLoader(batches, batch_size=None, sampler=numbers, num_workers=workers, prefetch_factor=4 if workers else None)


def validation_batch(recipe: Recipe, count: int) -> Batch:
    """`count` crops that training never sees: procedural scenes of another seed, or other crops of the folder."""
    data = recipe.data.model_copy(update={"pictures": count, "picture_seed": recipe.data.picture_seed + 1_000_003})
    return Batches(data, picture_source(data), recipe.seed + 1_000_003, count)[0]
