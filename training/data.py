"""Pictures for training: batch n is a function of the seed and n alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.degradation.pipeline import degrade
from ..core.degradation.presets import find_preset
from ..core.errors import KintsugiError, RecipeError
from .crops import Crop, cut_crop
from .recipe import DataSettings, Recipe
from .sources import picture_source
from .sources.base import Picture
from .sources.mixture import Mixture
from .stopping import ignore_stop


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
        moved: dict[str, Any] = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}
        return Batch(**moved)


class Batches(Dataset[Batch]):
    """Item n is the whole n-th batch of `count` crops, drawn from the seed and n."""

    def __init__(self, data: DataSettings, source: Mixture, seed: int, count: int) -> None:
        require_presets(data)
        self._data, self._source, self._seed, self._count = data, source, seed, count

    def __getitem__(self, index: int) -> Batch:
        random = np.random.default_rng([self._seed, index])
        names, crops, captions = [], [], []
        for _ in range(self._count):
            name, example = self._source.draw(random)
            crop = cut_crop(example, self._data, random)
            names.append(f"{name} at {crop.sizes[2]},{crop.sizes[3]}")
            crops.append(crop)
            captions.append(example.caption)
        high, low = _spoilt(crops, self._data, random)
        sizes = torch.tensor([crop.sizes for crop in crops], dtype=torch.float32)
        return Batch(tuple(names), high, low, tuple(captions), sizes)


def _spoilt(crops: Sequence[Crop], data: DataSettings, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
    """Both sides of the crops [B, 3, S, S]: what is stored, else degraded; the high side sharpened where the preset sharpens."""
    presets = _presets(data)
    if not presets:
        low = [as_planes(crop.low_quality) for crop in crops if crop.low_quality is not None]
        if low and len(low) < len(crops):
            raise RecipeError("some pictures have no stored pair.", where="data.degradation", way_out="Name a preset for them.")
        return torch.cat([as_planes(crop.high_quality) for crop in crops]), torch.cat(low) if low else None
    seed = int(random.integers(2**62))
    pairs = [_pair(crop, presets, data, seed + place, random) for place, crop in enumerate(crops)]
    return torch.cat([high for high, _ in pairs]), torch.cat([low for _, low in pairs])


def _presets(data: DataSettings) -> dict[str, float]:
    """Weights by name."""
    return {data.degradation: 1.0} if isinstance(data.degradation, str) else data.degradation or {}


def require_presets(data: DataSettings) -> None:
    """Raises BadValueError for a degradation that is none of the presets."""
    for name in _presets(data):
        find_preset(name)


def _pair(crop: Crop, presets: dict[str, float], data: DataSettings, seed: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """High and low side [1, 3, S, S] of one crop."""
    clean = as_planes(crop.high_quality)
    if crop.low_quality is not None:
        return clean, as_planes(crop.low_quality)
    names = list(presets)
    shares = np.asarray(list(presets.values())) / sum(presets.values())
    name = str(random.choice(names, p=shares)) if len(names) > 1 else names[0]
    made = degrade(clean, name, scale=data.scale, seed=seed, restore_size=True)
    is_unspoilt = data.unspoilt > 0 and random.random() < data.unspoilt
    return made.high_quality, made.high_quality if is_unspoilt else made.low_quality


def as_planes(picture: Picture) -> Tensor:
    """[1, 3, H, W] in 0..1 of uint8 [H, W, 3]."""
    return torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() / 255


class _Told(Dataset[Batch | KintsugiError]):
    """Gives a person's error back: raised in another process it would arrive as a text with its traceback."""

    def __init__(self, batches: Dataset[Batch]) -> None:
        self._batches = batches

    def __getitem__(self, index: int) -> Batch | KintsugiError:
        try:
            return self._batches[index]
        except KintsugiError as error:
            return error


def batch_loader(batches: Dataset[Batch], numbers: Iterable[int], workers: int) -> Iterator[Batch]:
    """The batches of these numbers in order, made ahead in `workers` processes."""
    prefetch = 4 if workers else None
    loader = DataLoader(
        _Told(batches), batch_size=None, sampler=numbers, num_workers=workers, prefetch_factor=prefetch, worker_init_fn=ignore_stop
    )
    for batch in loader:
        if isinstance(batch, KintsugiError):
            raise batch
        yield batch


def validation_batch(recipe: Recipe, count: int) -> Batch:
    """`count` crops that training never sees: procedural scenes of another seed, or other crops of the folder."""
    data = recipe.data.model_copy(update={"pictures": count, "picture_seed": recipe.data.picture_seed + 1_000_003})
    return Batches(data, picture_source(data), recipe.seed + 1_000_003, count)[0]
