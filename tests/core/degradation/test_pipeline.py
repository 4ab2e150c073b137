"""Presets and pipeline: reproducible, replayable, independent of the batch, open to overrides."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import get_args

import pytest
import torch
from kintsugi.core.degradation import stages, steps
from kintsugi.core.degradation.pipeline import degrade, replay
from kintsugi.core.degradation.presets import PRESETS, find_preset
from kintsugi.core.degradation.sampling import DRAWERS, Dice, draw_steps
from kintsugi.core.errors import BadValueError, KintsugiError
from torch import Tensor

PRESET_NAMES = list(PRESETS)


@pytest.fixture
def pictures() -> Tensor:
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.interpolate(coarse, (64, 72), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_replay_from_json_gives_the_same_bits(preset: str, pictures: Tensor) -> None:
    for seed in (0, 11):
        degraded = degrade(pictures, preset, scale=4, seed=seed)
        assert degraded.low_quality.shape == (3, 3, 16, 18)
        assert torch.equal(replay(pictures, json.loads(json.dumps(degraded.parameters))), degraded.low_quality)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_picture_of_a_batch_equals_it_alone_with_its_own_seed(preset: str, pictures: Tensor) -> None:
    batch = degrade(pictures, preset, scale=2, seed=3, restore_size=True)
    assert batch.low_quality.shape == pictures.shape
    alone = degrade(pictures[2:], preset, scale=2, seed=5, restore_size=True)
    assert torch.equal(alone.low_quality, batch.low_quality[2:])
    assert alone.parameters[0] == batch.parameters[2]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_results_are_8_bit_pictures_and_inputs_stay_as_they_were(preset: str, pictures: Tensor) -> None:
    before = pictures.clone()
    levels = degrade(pictures, preset, seed=1).low_quality * 255
    assert torch.equal(pictures, before)
    assert levels.min() >= 0 and levels.max() <= 255 and (levels - levels.round()).abs().max() < 1e-4


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 33)])
def test_tiny_pictures_are_degraded_too(preset: str, size: tuple[int, int]) -> None:
    assert degrade(torch.rand(1, 3, *size), preset, scale=8, seed=2, restore_size=True).low_quality.shape[-2:] == size


def test_every_kind_of_stage_can_be_drawn() -> None:
    union = get_args(stages.Stage)[0]
    assert set(get_args(union)) == set(DRAWERS)


def test_seesr_gives_the_sharpened_picture_as_its_target(pictures: Tensor) -> None:
    degraded = degrade(pictures, "real-esrgan-seesr", seed=4)
    assert torch.equal(degraded.high_quality, torch.cat([steps.Sharpen().apply(picture) for picture in pictures.split(1)]))
    assert torch.equal(degrade(pictures, "real-esrgan", seed=4).high_quality, pictures)


def test_real_esrgan_draws_its_published_probabilities() -> None:
    drawn = [draw_steps(PRESETS["real-esrgan"], 256, 256, 4, torch.Generator().manual_seed(seed), False) for seed in range(1500)]
    first = [recipe[0] for recipe in drawn]
    families = Counter(step.family for step in first if isinstance(step, steps.Blur))
    assert sum(isinstance(step, steps.Sinc) for step in first) / 1500 == pytest.approx(0.1, abs=0.03)
    assert families["iso"] / families.total() == pytest.approx(0.45, abs=0.05)
    assert {step.size for step in first} == set(range(7, 22, 2))
    betas = [step.beta for step in first if isinstance(step, steps.Blur) and step.family.startswith("generalised")]
    assert sum(beta < 1 for beta in betas) / len(betas) == pytest.approx(0.5, abs=0.12)
    gaussian = sum(any(isinstance(step, steps.GaussianNoise) for step in recipe[:4]) for recipe in drawn)
    assert gaussian / 1500 == pytest.approx(0.5, abs=0.06)
    for recipe in drawn:
        assert [step.operation for step in recipe].count("compress") == 2
        *_, final = (step for step in recipe if isinstance(step, steps.Resize))
        assert (final.height, final.width) == (64, 64) or all(not isinstance(step, steps.Resize) for step in recipe)


def test_the_final_sinc_and_jpeg_come_in_either_order_equally_often() -> None:
    always_sinc = find_preset("real-esrgan", {"finish": {"resample": {"sinc": {"probability": 1}}}})
    drawn = [draw_steps(always_sinc, 256, 256, 4, torch.Generator().manual_seed(seed), False) for seed in range(3000)]
    assert {type(recipe[-2]) for recipe in drawn} == {steps.Compress, steps.Sinc}
    assert sum(isinstance(recipe[-2], steps.Compress) for recipe in drawn) / 3000 == pytest.approx(0.5, abs=0.03)


def test_sinc_cutoffs_respect_the_kernel_size() -> None:
    preset = find_preset("real-esrgan", {"blur_1": {"sinc_probability": 1.0}})
    for seed in range(200):
        step = draw_steps(preset, 64, 64, 4, torch.Generator().manual_seed(seed), False)[0]
        assert isinstance(step, steps.Sinc)
        assert math.pi / (3 if step.size < 13 else 5) <= step.cutoff <= math.pi


def test_mild_mixes_the_three_kinds_of_evaluation() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(1000):
        names = [step.operation for step in draw_steps(PRESETS["mild"], 96, 96, 1, torch.Generator().manual_seed(seed), True)]
        kinds["photo" if "compress" in names and "resize" in names else "same" if "compress" in names else "shrunk"] += 1
    assert [kinds[name] / 1000 for name in ("shrunk", "same", "photo")] == pytest.approx([0.3, 0.3, 0.4], abs=0.05)


def test_apisr_resizes_at_any_place_and_uses_three_codecs() -> None:
    drawn = [draw_steps(PRESETS["apisr"], 128, 128, 4, torch.Generator().manual_seed(seed), False) for seed in range(300)]
    codecs = {step.codec for recipe in drawn for step in recipe if isinstance(step, steps.Compress)}
    places = {next(i for i, step in enumerate(recipe) if isinstance(step, steps.Resize)) for recipe in drawn}
    assert codecs == {"jpeg", "webp", "avif"} and {0, 1, 2, 3} <= places


def test_dice_pick_never_gives_a_weight_of_zero() -> None:
    dice = Dice(torch.Generator().manual_seed(0))
    assert {dice.pick({"never": 0.0, "a": 1.0, "b": 2.0, "nor": 0.0}) for _ in range(300)} == {"a", "b"}


def test_overrides_reach_every_number_and_leave_the_rest() -> None:
    changes = {"blur_1": {"sigma": [2.0, 2.0], "families": {"aniso": 0}}, "finish": {"compress": {"jpeg": {"quality": [50, 50]}}}}
    preset = find_preset("real-esrgan", changes)
    blur, finish = preset.stages["blur_1"], preset.stages["finish"]
    assert isinstance(blur, stages.BlurStage) and isinstance(finish, stages.AnyPlace)
    assert blur.sigma == (2.0, 2.0) and blur.families["aniso"] == 0 and blur.families["iso"] == 0.45 and blur.sizes == (7, 21)
    assert finish.stages["compress"].jpeg.quality == (50.0, 50.0)
    assert PRESETS["real-esrgan"].stages["blur_1"].sigma == (0.2, 3.0)
    only_photo = {"kind": {"weights": {"shrunk": 0, "same_size": 0}}}
    assert all(
        any(step.operation == "compress" for step in draw_steps(find_preset("mild", only_photo), 64, 64, 1, torch.Generator(), True))
        for _ in range(20)
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"blurr": {}}, "Known names: blur_1, resize_1"),
        ({"blur_1": {"sigmas": [1, 2]}}, "Known names: probability, families, sizes, sigma"),
        ({"blur_1": {"sigma": [3, 1]}}, "from low to high"),
        ({"blur_1": {"sigma": [0, "thick"]}}, "sigma"),
        ({"blur_1": {"families": {"round": 1}}}, "families"),
        ({"blur_1": 3}, "expected an object"),
        ({"blur_1": {"probability": 2}}, "less than or equal to 1"),
        ({"finish": {"compress": {"jpeg": {"weight": 0}}}}, "at least one codec"),
        ({"resize_1": {"modes": {"area": 0, "bilinear": 0, "bicubic": 0}}}, "above 0"),
        ({"name": "x"}, "Known names"),
    ],
    ids=str,
)
def test_an_impossible_override_is_told_with_its_place(changes: dict[str, object], told: str) -> None:
    with pytest.raises(BadValueError) as caught:
        find_preset("real-esrgan", changes)
    assert told in str(caught.value) and "preset real-esrgan" in str(caught.value)


def test_bad_requests_are_told(pictures: Tensor) -> None:
    recorded = degrade(pictures[:1], "bicubic").parameters
    faulty = [{**recorded[0], "steps": [{"operation": "explode"}]}]
    for action in (
        lambda: degrade(pictures, "unheard-of"),
        lambda: degrade(pictures, "bicubic", scale=0),
        lambda: degrade(pictures[:, :1], "bicubic"),
        lambda: degrade(pictures * math.nan, "bicubic"),
        lambda: replay(pictures, recorded),
        lambda: replay(pictures[:1, :, :32], recorded),
        lambda: replay(pictures[:1], faulty),
    ):
        with pytest.raises(KintsugiError):
            action()
