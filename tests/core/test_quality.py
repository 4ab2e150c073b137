from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
from kintsugi.core.errors import BadValueError, MissingPackageError
from kintsugi.core.quality import METRICS, MS_SSIM_WEIGHTS, find_metric, luma, measure, parse_metrics

RANDOM = torch.Generator().manual_seed(0)
REFERENCE = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 26, generator=RANDOM), scale_factor=8, mode="bicubic").clamp(0, 1)
PICTURE = (REFERENCE + 0.05 * torch.randn(REFERENCE.shape, generator=RANDOM)).clamp(0, 1)


def value(name: str, picture: torch.Tensor = PICTURE, reference: torch.Tensor = REFERENCE) -> float:
    return measure(picture, reference, [name])[name]


def array(picture: torch.Tensor) -> np.ndarray:
    return picture[0].permute(1, 2, 0).double().numpy()


def test_psnr_and_ssim_equal_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    planes = [luma(picture)[0, 0].double().numpy() for picture in (REFERENCE, PICTURE)]
    expected = metrics.peak_signal_noise_ratio(array(REFERENCE), array(PICTURE), data_range=1)
    assert value("psnr") == pytest.approx(expected, abs=1e-5)
    assert value("psnr_y") == pytest.approx(metrics.peak_signal_noise_ratio(*planes, data_range=1), abs=1e-4)
    expected = metrics.structural_similarity(*planes, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert value("ssim") == pytest.approx(expected, abs=1e-6)


def test_measures_of_digital_luma_equal_scikit_image_on_its_ycbcr() -> None:
    color, metrics = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.metrics")
    planes = [color.rgb2ycbcr(array(picture))[..., 0] for picture in (REFERENCE, PICTURE)]
    expected = metrics.peak_signal_noise_ratio(*planes, data_range=255)
    assert value("psnr_y601") == pytest.approx(expected, abs=1e-3), "1e-8 is added to the error"
    rounded = [np.round(plane) for plane in planes]
    _, values = metrics.structural_similarity(
        *rounded, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert value("ssim_y601") == pytest.approx(values[5:-5, 5:-5].mean(), abs=1e-6)


def test_measures_of_digital_luma_by_hand() -> None:
    """A step of 10 levels of green is 10 * 128.553 / 255 levels of Y, out of 255."""
    flat = torch.full((1, 3, 12, 12), 0.5)
    greener = flat + torch.tensor([0, 10 / 255, 0]).view(1, 3, 1, 1)
    assert value("psnr_y601", greener, flat) == pytest.approx(20 * np.log10(255 / (10 * 128.553 / 255)), abs=1e-3)
    assert value("psnr_y601", flat, flat) == pytest.approx(80) and value("ssim_y601", flat, flat) == pytest.approx(1)
    inverted = value("ssim_y601", 1 - REFERENCE, REFERENCE)
    assert inverted == pytest.approx(0, abs=0.02), "negative structure counts as none"


def test_ms_ssim_equals_its_definition_in_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x, y = (luma(picture)[0, 0].double().numpy() for picture in (PICTURE, REFERENCE))
    result = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        blur = lambda plane: ndimage.gaussian_filter(plane, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
        structure = (2 * (blur(x * y) - blur(x) * blur(y)) + 9e-4) / (blur(x * x) - blur(x) ** 2 + blur(y * y) - blur(y) ** 2 + 9e-4)
        luminance = (2 * blur(x) * blur(y) + 1e-4) / (blur(x) ** 2 + blur(y) ** 2 + 1e-4)
        result *= float((structure * luminance if scale == 4 else structure).mean()) ** weight
        x, y = (plane[: len(plane) // 2 * 2, : plane.shape[1] // 2 * 2].reshape(len(plane) // 2, 2, -1, 2).mean((1, 3)) for plane in (x, y))
    assert value("ms_ssim") == pytest.approx(result, abs=1e-6)


def test_equal_pictures_are_perfect() -> None:
    assert value("psnr", REFERENCE) == inf
    assert value("ssim", REFERENCE) == pytest.approx(1) and value("ms_ssim", REFERENCE) == pytest.approx(1)
    assert value("swd", REFERENCE) == 0 and value("grid", REFERENCE) == 1


def test_swd_sees_lost_texture_and_is_repeatable() -> None:
    blurred = torch.nn.functional.avg_pool2d(PICTURE, 5, 1, 2)
    assert value("swd", blurred, PICTURE) > 3 * value("swd", PICTURE.roll(1, 3), PICTURE)
    assert value("swd") == value("swd")


@pytest.mark.parametrize("period", [4, 8, 16])
def test_grid_check_finds_a_dotted_grid(period: int) -> None:
    size = torch.zeros(1, 3, 192, 208)
    noise = size + 0.02 * torch.randn(size.shape, generator=torch.Generator().manual_seed(1))
    assert value("grid", noise, size) < 2
    dotted = noise.clone()
    dotted[:, :, :, ::period] += 0.015 * period**0.5
    assert value("grid", dotted, size) > 4
    assert value("grid", dotted.transpose(2, 3), size.transpose(2, 3)) > 4


def test_noise_estimate_finds_the_noise() -> None:
    flat = torch.full((1, 3, 200, 200), 0.5) + 10 / 255 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(2))
    assert value("noise", flat, flat) == pytest.approx(10, rel=0.05)


def test_no_reference_measures_move_the_right_way() -> None:
    blurred = torch.nn.functional.avg_pool2d(PICTURE, 3, 1, 1)
    assert value("sharpness", blurred) < value("sharpness")
    blocks = torch.rand(1, 3, 12, 12, generator=RANDOM).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert value("blockiness", blocks + 0.01 * torch.rand(1, 3, 96, 96, generator=RANDOM), blocks) > 10
    assert value("blockiness") == pytest.approx(1, abs=0.1)
    assert value("colorfulness", torch.full((1, 3, 8, 8), 0.3), torch.zeros(1, 3, 8, 8)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_every_measure_says_when_a_picture_is_too_small_or_gives_a_number(name: str) -> None:
    one = torch.zeros(1, 3, 1, 1)
    try:
        assert isinstance(measure(one, one, [name])[name], float)
    except BadValueError as error:
        assert "1 x 1" in str(error)


def test_wrong_requests_are_said() -> None:
    with pytest.raises(BadValueError, match="no measure"):
        find_metric("beauty")
    with pytest.raises(BadValueError, match="psnr"):
        parse_metrics("psnr, noise", has_reference=False)
    with pytest.raises(BadValueError, match="26 x 24"):
        measure(torch.zeros(1, 3, 24, 26), torch.zeros(1, 3, 12, 13), ["psnr"])
    assert parse_metrics(" psnr ,ssim\n", True) == ["psnr", "ssim"] and parse_metrics("", False)


def test_absent_pyiqa_is_named_with_its_extra() -> None:
    with pytest.raises(MissingPackageError, match=r"\[iqa\]"):
        find_metric("pyiqa:no_such_measure")
