"""Crops and batches: a function of the seed and their number, whatever their pictures lie in and whoever makes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.degradation.pipeline import degrade
from kintsugi.core.errors import BadValueError, RecipeError
from kintsugi.training.crops import cut_crop
from kintsugi.training.data import Batch, Batches, batch_loader, validation_batch
from kintsugi.training.recipe import DataSettings, load_recipe
from kintsugi.training.sources import picture_source
from kintsugi.training.sources.base import Example
from PIL import Image
from torch import Tensor


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    folder = tmp_path / "noise"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (40 + 7 * index, 64 - 9 * index, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def settings(folder: Path, **changes: object) -> DataSettings:
    return DataSettings.model_validate({"source": "folder", "folder": folder, "crop": 32, **changes})


def batches(data: DataSettings, seed: int = 5, count: int = 4) -> Batches:
    return Batches(data, picture_source(data), seed, count)


def same(one: Batch, other: Batch) -> bool:
    low = (one.low_quality is None and other.low_quality is None) or torch.equal(one.degraded, other.degraded)
    return low and one.names == other.names and torch.equal(one.high_quality, other.high_quality) and torch.equal(one.sizes, other.sizes)


def low_of(data: DataSettings, seed: int = 5, count: int = 4) -> Tensor:
    return batches(data, seed, count)[0].degraded


def gradient(height: int, width: int) -> np.ndarray:
    """Red counts the rows, green the columns."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_crops_are_where_earlier_runs_cut_them(noise: Path) -> None:
    batch = batches(settings(noise))[3]
    assert [name.rpartition("/")[2] for name in batch.names] == ["3.png at 21,1", "2.png at 0,5", "3.png at 4,2", "3.png at 25,0"]
    assert hashlib.sha256(batch.high_quality.numpy().tobytes()).hexdigest()[:12] == "85ad196f986a"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_nth_batch_is_the_same_under_any_number_of_workers(workers: int, noise: Path) -> None:
    data = settings(noise, degradation={"mild": 1.0, "rain": 1.0}, unspoilt=0.3)
    made = batches(data)
    for number, batch in zip([4, 2, 3], batch_loader(made, [4, 2, 3], workers), strict=True):
        assert same(batch, made[number])
        assert not same(batch, made[number + 1])


def test_a_mistake_in_a_worker_arrives_without_its_traceback(noise: Path) -> None:
    for path in noise.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(RecipeError, match=r"^data: 1 of 1 training pictures"):
        next(batch_loader(batches(settings(noise)), [0], 1))


def test_an_unknown_preset_is_named_before_anything_is_drawn(noise: Path) -> None:
    with pytest.raises(BadValueError, match="mils"):
        batches(settings(noise, degradation={"mild": 0.5, "mils": 0.5}))


def test_several_presets_are_drawn_by_weight(noise: Path) -> None:
    data = settings(noise, degradation={"bicubic": 3.0, "salt-and-pepper": 1.0})
    batch = batches(data, count=200)[0]
    unchanged = (batch.degraded == batch.high_quality).flatten(1).all(dim=1)
    assert abs(int(unchanged.sum()) - 150) < 25, "bicubic at scale 1 changes nothing"


def test_a_share_of_crops_stays_unspoilt(noise: Path) -> None:
    batch = batches(settings(noise, degradation="salt-and-pepper", unspoilt=0.25), count=200)[0]
    unchanged = (batch.degraded == batch.high_quality).flatten(1).all(dim=1)
    assert abs(int(unchanged.sum()) - 50) < 20
    assert (low_of(settings(noise, degradation="salt-and-pepper")) != batches(settings(noise))[0].high_quality).any()


def test_the_scale_of_a_degradation_is_the_recipes(noise: Path) -> None:
    clean = batches(settings(noise))[0].high_quality
    expected = degrade(clean, "bicubic", scale=4, restore_size=True).low_quality
    assert torch.equal(low_of(settings(noise, degradation="bicubic", scale=4)), expected)


def test_a_preset_that_sharpens_sharpens_the_target(noise: Path) -> None:
    clean = batches(settings(noise))[0].high_quality
    sharpened = batches(settings(noise, degradation="real-esrgan-seesr", scale=4))[0].high_quality
    assert torch.equal(sharpened, degrade(clean, "real-esrgan-seesr").high_quality)
    assert not torch.equal(sharpened, clean)


def test_a_resize_gives_the_short_side_its_length_and_the_ids_the_true_size() -> None:
    data = DataSettings.model_validate({"crop": 32, "flip": False, "turn": False, "resize": {"side": 32}})
    crop = cut_crop(Example(gradient(64, 128)), data, np.random.default_rng(1))
    height, width, top, left, *sides = crop.sizes
    assert (height, width, top, sides) == (64, 128, 0, [32, 32])
    assert 0 <= left <= 32
    assert abs(int(crop.high_quality[16, 16, 1]) - 2 * (left + 16.25)) < 2


def test_a_range_of_sides_is_drawn_from() -> None:
    data = DataSettings.model_validate({"crop": 32, "flip": False, "turn": False, "resize": {"side": [32, 64]}})
    random = np.random.default_rng(1)
    steps = {int(np.ptp(cut_crop(Example(gradient(64, 64)), data, random).high_quality[..., 0])) for _ in range(20)}
    assert min(steps) < 36 < 56 < max(steps)


def test_a_squeeze_keeps_the_whole_picture() -> None:
    data = DataSettings.model_validate({"crop": 32, "flip": False, "turn": False, "resize": {"side": 32, "filter": "box", "squeeze": True}})
    crop = cut_crop(Example(gradient(64, 128)), data, np.random.default_rng(1))
    assert crop.sizes == (64, 128, 0, 0, 32, 32)
    assert np.ptp(crop.high_quality[..., 0]) > 60
    assert np.ptp(crop.high_quality[..., 1]) > 120


@pytest.mark.parametrize("turned", [False, True])
def test_turns_and_flips_are_the_recipes_choice(turned: bool) -> None:
    data = DataSettings.model_validate({"crop": 32, "flip": turned, "turn": turned})
    random = np.random.default_rng(1)
    crops = [cut_crop(Example(gradient(32, 32)), data, random).high_quality for _ in range(40)]
    assert len({crop.tobytes() for crop in crops}) == (8 if turned else 1)


def test_a_stored_pair_is_cut_and_turned_alike() -> None:
    data = DataSettings.model_validate({"crop": 32})
    picture = gradient(48, 64)
    for seed in range(10):
        crop = cut_crop(Example(picture, picture), data, np.random.default_rng(seed))
        assert crop.low_quality is not None
        assert (crop.low_quality == crop.high_quality).all()


def test_a_smaller_stored_pair_is_enlarged_to_its_partner() -> None:
    data = DataSettings.model_validate({"crop": 32, "flip": False, "turn": False})
    picture = gradient(48, 64)
    small = np.asarray(Image.fromarray(picture).resize((16, 12), Image.Resampling.BOX))
    crop = cut_crop(Example(picture, small), data, np.random.default_rng(2))
    assert crop.low_quality is not None
    difference = crop.low_quality.astype(int)[8:-8, 8:-8] - crop.high_quality.astype(int)[8:-8, 8:-8]
    assert abs(difference).max() <= 2


def test_paired_folders_need_no_degradation(noise: Path, tmp_path: Path) -> None:
    for side in ("high", "low"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for path in noise.iterdir():
            (tmp_path / "pairs" / side / path.name).write_bytes(path.read_bytes())
    batch = batches(settings(tmp_path / "pairs", source="paired"))[0]
    assert torch.equal(batch.degraded, batch.high_quality)


def test_a_mixture_of_pairs_and_clean_pictures_needs_a_preset(noise: Path, tmp_path: Path) -> None:
    for side in ("high", "low"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "0.png").write_bytes((noise / "0.png").read_bytes())
    mix = [{"source": "paired", "folder": tmp_path, "weight": 1.0}, {"source": "folder", "folder": noise, "weight": 1.0}]
    with pytest.raises(RecipeError, match="no stored pair"):
        batches(DataSettings.model_validate({"mix": mix, "crop": 32}), count=20)[0]
    made = batches(DataSettings.model_validate({"mix": mix, "crop": 32, "degradation": "salt-and-pepper"}), count=20)[0]
    unchanged = (made.degraded == made.high_quality).flatten(1).all(dim=1)
    assert [str(noise) not in name for name in made.names] == unchanged.tolist()


def test_captions_travel_with_their_crops(noise: Path) -> None:
    for index in range(4):
        (noise / f"{index}.txt").write_text(f"picture {index}")
    batch = batches(settings(noise))[0]
    assert batch.captions == tuple(f"picture {name.rpartition('/')[2][0]}" for name in batch.names)


def test_validation_sees_other_crops_than_training(noise: Path) -> None:
    recipe = load_recipe("mini-swinir", {"data": f"{{source: folder, folder: '{noise}', crop: 32}}"})
    assert not same(validation_batch(recipe, 4), batches(recipe.data, recipe.seed)[0])
