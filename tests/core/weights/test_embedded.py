"""The weights that ship: they load, they gain, and what they restore has neither seams nor tinted surfaces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.quality import measure
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights import embedded
from kintsugi.core.weights.generators import METHODS, load_generator, weights_choices
from torch import Tensor

SAMPLE = Path(__file__).parents[3] / "docs" / "sample"


@pytest.fixture(scope="module")
def generator() -> Generator:
    with using_host(LocalHost(device=torch.device("cpu"))):
        return load_generator("gendr", "embedded", "fp32")


@pytest.fixture(scope="module")
def sample() -> Tensor:
    """The middle of the damaged sample photo [1, 256, 256, 3]."""
    return read_photo(SAMPLE / "sample.jpg").picture[:, 128:384, 128:384]


def test_auto_takes_the_embedded_weights_where_there_are_no_others(caplog: pytest.LogCaptureFixture) -> None:
    assert weights_choices() == ["auto", "embedded"]
    with caplog.at_level("INFO", "kintsugi"):
        assert load_generator("gendr", "auto").name == "gendr (mini-gendr)"
    assert "the small embedded ones" in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_every_embedded_student_is_taken_by_auto_and_restores_the_same_whatever_the_tile(method: str) -> None:
    """Above what it was trained on, its own bound decides."""
    generator, picture = load_generator(method, "auto", "fp32"), torch.rand(1, 110, 60, 3, generator=torch.Generator().manual_seed(0))
    assert generator.name == f"{method} ({embedded.GENERATORS[method].stem})"
    restored = restore(generator, picture, 2.0, 0, Tiling())
    assert restored.shape == (1, 220, 120, 3) and restored.isfinite().all() and restored.std() > 0
    assert torch.equal(restore(generator, picture, 2.0, 0, Tiling(1024)), restored)


def test_every_embedded_file_is_small_and_has_its_card() -> None:
    for path in embedded.FOLDER.glob("*.safetensors"):
        assert path.stat().st_size <= 8 * 2**20
        assert path.with_suffix(".md").read_text().startswith("# ")


def test_the_sample_photo_gains_at_least_half_a_decibel_and_structure(generator: Generator) -> None:
    damaged, clean = (read_photo(SAMPLE / name).picture for name in ("sample.jpg", "clean.png"))
    restored = restore(generator, damaged, 1.0, 0, Tiling(), "wavelet")
    before, after = (measure(picture.movedim(-1, 1), clean.movedim(-1, 1), ["psnr", "ssim"]) for picture in (damaged, restored))
    assert after["psnr"] >= before["psnr"] + 0.5
    assert after["ssim"] > before["ssim"]


@pytest.mark.parametrize("color", [(10, 200, 30), (255, 255, 255), (0, 0, 0), (200, 30, 30), (128, 128, 128)])
def test_a_flat_surface_stays_flat_and_keeps_its_color(generator: Generator, color: tuple[int, int, int]) -> None:
    flat = (torch.tensor(color) / 255).expand(1, 160, 160, 3).clone()
    restored = restore(generator, flat, 1.0, 0, Tiling(64, 32), "wavelet")
    assert ((restored - flat).abs().max() * 255).item() <= 8


def test_tile_borders_are_no_rougher_than_the_rest(generator: Generator, sample: Tensor) -> None:
    tiled = restore(generator, sample, 1.0, 0, Tiling(64, 64), "wavelet")
    steps = tiled.diff(dim=2).abs().mean(dim=(0, 1, 3))
    whole = restore(generator, sample, 1.0, 0, Tiling(256, 64), "wavelet").diff(dim=2).abs().mean(dim=(0, 1, 3))
    borders = torch.arange(64, 256, 64) - 1
    assert (steps[borders] / whole[borders]).mean() <= 1.02 * (steps / whole).mean()


def test_bfloat16_restores_the_same_picture_within_its_precision(generator: Generator, sample: Tensor) -> None:
    exact = restore(generator, sample, 1.0, 0, Tiling(), "wavelet")
    rounded = restore(load_generator("gendr", "embedded", "bf16"), sample, 1.0, 0, Tiling(), "wavelet")
    assert ((exact - rounded).abs().mean() * 255).item() <= 1.0


def test_another_micro_batch_changes_no_pixel_by_more_than_one_level(generator: Generator, sample: Tensor) -> None:
    alone = restore(generator, sample, 1.0, 0, Tiling(), "wavelet")
    with using_host(LocalHost(device=torch.device("cpu"), micro_batch=3)):
        padded = restore(generator, sample, 1.0, 0, Tiling(), "wavelet")
    assert ((alone * 255).round() - (padded * 255).round()).abs().max() <= 1
