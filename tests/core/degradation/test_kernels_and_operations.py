"""Each operation of the degradation model against an independent computation or its own promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kintsugi.core.degradation import codecs, filters, kernels, noise, resampling, scenes, simulated_jpeg
from PIL import Image
from scipy import ndimage, special
from torch import Tensor


@pytest.fixture
def pictures() -> Tensor:
    coarse = torch.rand(3, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (40, 52), mode="bicubic").clamp(0, 1)


def test_bessel_j1_has_float64_precision() -> None:
    x = torch.linspace(0, 120, 997, dtype=torch.float64)
    assert (kernels.bessel_j1(x) - torch.from_numpy(special.j1(x.numpy()))).abs().max() < 1e-14


def test_generalised_kernel_with_beta_1_is_the_gaussian() -> None:
    numbers = (2.1, 0.7, 0.4)
    torch.testing.assert_close(kernels.generalised_kernel(15, 1.0, *numbers), kernels.gaussian_kernel(15, *numbers), rtol=0, atol=1e-15)


def test_gaussian_profile_is_one_axis_of_the_gaussian_kernel() -> None:
    profile = kernels.gaussian_profile(9, 1.3)
    torch.testing.assert_close(torch.outer(profile, profile), kernels.gaussian_kernel(9, 1.3), rtol=0, atol=1e-15)


def test_each_picture_is_filtered_with_its_own_kernel(pictures: Tensor) -> None:
    own = torch.stack([kernels.gaussian_kernel(7, sigma, 0.5, 1.0) for sigma in (0.4, 1.0, 3.0)])
    together = filters.filter_pictures(pictures, own)
    for index in range(3):
        alone = ndimage.correlate(pictures[index].double().numpy(), own[index].numpy()[None], mode="mirror")
        np.testing.assert_allclose(together[index].numpy(), alone, atol=1e-6)


def test_separable_filter_equals_the_full_kernel(pictures: Tensor) -> None:
    profiles = torch.stack([kernels.gaussian_profile(11, sigma) for sigma in (0.6, 1.2, 2.0)])
    full = filters.filter_pictures(pictures, torch.stack([torch.outer(profile, profile) for profile in profiles]))
    torch.testing.assert_close(filters.separable_filter(pictures, profiles), full, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (9, 40)])
def test_reflection_goes_on_where_the_margin_is_wider_than_the_picture(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 2, *size)
    expected = np.pad(picture.numpy(), ((0, 0), (0, 0), (10, 10), (25, 25)), mode="reflect")
    np.testing.assert_array_equal(filters.reflect_pad(picture, 10, 25).numpy(), expected)


def test_antialiased_resize_equals_pillow(pictures: Tensor) -> None:
    ours = resampling.resize_pictures(pictures[:1, :1], 13, 17, "bicubic-antialiased")[0, 0]
    theirs = np.array(Image.fromarray(pictures[0, 0].numpy()).resize((17, 13), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-6)


def test_poisson_noise_has_the_variance_of_photon_counts() -> None:
    grey = torch.full((1, 3, 200, 200), 128 / 255)
    grey[..., 0, :] = torch.arange(200) / 255
    generator = torch.Generator().manual_seed(0)
    added = noise.poisson_noise(grey, [generator], torch.tensor([1.0]), grey=False)[..., 1:, :]
    assert added.std().item() == pytest.approx(math.sqrt(128 / 255 / 256), rel=0.02)
    assert abs(added.mean().item()) < 0.001


def test_grey_poisson_noise_is_one_field_for_three_channels(pictures: Tensor) -> None:
    generators = [torch.Generator().manual_seed(index) for index in range(3)]
    assert noise.poisson_noise(pictures, generators, torch.ones(3), grey=True).shape == (3, 1, 40, 52)


def test_salt_and_pepper_hits_its_share_of_pixels(pictures: Tensor) -> None:
    draw = torch.rand(3, 1, 40, 52, generator=torch.Generator().manual_seed(2))
    spoilt = noise.salt_and_pepper(pictures * 0.8 + 0.1, draw, torch.tensor([0.0, 0.1, 1.0]))
    shares = ((spoilt == 0) | (spoilt == 1)).all(dim=1).float().mean(dim=(1, 2))
    assert shares[0] == 0 and shares[2] == 1 and shares[1].item() == pytest.approx(0.1, abs=0.02)


def test_simulated_jpeg_takes_one_quality_per_picture(pictures: Tensor) -> None:
    together = simulated_jpeg.simulated_jpeg(pictures, torch.tensor([15.0, 50.0, 92.5]))
    for index, quality in enumerate((15.0, 50.0, 92.5)):
        alone = simulated_jpeg.simulated_jpeg(pictures[index : index + 1], torch.tensor([quality]))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-5)


def test_differentiable_jpeg_gives_gradients_to_picture_and_quality(pictures: Tensor) -> None:
    picture, quality = pictures[:1].clone().requires_grad_(), torch.tensor([40.0], requires_grad=True)
    soft = simulated_jpeg.simulated_jpeg(picture, quality, differentiable=True)
    soft.square().sum().backward()
    assert picture.grad is not None and picture.grad.isfinite().all() and picture.grad.abs().sum() > 0
    assert quality.grad is not None and quality.grad.isfinite().all() and quality.grad.abs() > 0
    assert (soft - simulated_jpeg.simulated_jpeg(picture, quality)).abs().max() < 0.2


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
def test_real_codecs_lose_more_at_lower_quality(codec: codecs.Codec, pictures: Tensor) -> None:
    errors = [(codecs.compress(pictures[0], codec, quality) - pictures[0]).square().mean().item() for quality in (95, 10)]
    assert 0 < errors[0] < errors[1] < 0.05


def test_full_chroma_keeps_colour_edges_that_half_chroma_smears() -> None:
    stripes = torch.zeros(3, 32, 32)
    stripes[0, :, ::2] = 1.0
    full, half = (codecs.compress(stripes, "jpeg", 95, chroma) for chroma in ("4:4:4", "4:2:0"))
    assert (full - stripes).abs().mean() < 0.05 < (half - stripes).abs().mean()


def test_rain_only_adds_light_and_follows_its_angle() -> None:
    dark = torch.zeros(1, 3, 64, 64)
    draw = torch.ones(1, 1, 64, 64)
    draw[..., 32, 32] = 0
    wet = scenes.rain_streaks(dark, draw, density=0.5, length=20, angle=0.0, width=0.5, brightness=0.6)
    rows, columns = wet[0, 0].amax(dim=1) > 0.05, wet[0, 0].amax(dim=0) > 0.05
    assert wet.min() >= 0 and wet.max().item() == pytest.approx(0.6) and rows.sum() > 12 and columns.sum() <= 3


def test_low_light_darkens() -> None:
    assert scenes.low_light(torch.tensor([0.0, 0.5, 1.0]), gamma=2.0, gain=0.5).tolist() == [0.0, 0.125, 0.5]


def test_polyline_mask_covers_its_strokes() -> None:
    mask = scenes.polyline_mask(20, 30, [[(5.0, 10.0), (25.0, 10.0)]], [4.0])
    assert mask.shape == (1, 1, 20, 30) and mask[0, 0, 10, 15] == 1 and mask[0, 0, 2].sum() == 0
    assert scenes.paint_white(torch.zeros(1, 3, 20, 30), mask)[0, :, 10, 15].tolist() == [1, 1, 1]
