"""The nodes of FluxGen: pictures that Flux draws, and the good ones of a batch."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from kintsugi.core.errors import BadValueError
from kintsugi.core.methods.fluxgen import Drawing, generate
from kintsugi.core.quality import measure
from kintsugi.nodes.fluxgen import KintsugiFluxGen, KintsugiSelectByQuality
from kintsugi.nodes.quality import planes
from tiny_flux import tiny_flux, tiny_prior

# Grey noise, stronger from picture to picture.
GRAIN = torch.randn(32, 32, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3)
NOISY = torch.stack([0.5 + (1 + level) * GRAIN / 255 for level in range(21)]).clamp(0, 1)


def kept(metrics: str, keep: float, pictures: torch.Tensor = NOISY) -> list[int]:
    images, _ = KintsugiSelectByQuality().select(pictures, metrics, keep)["result"]
    return [next(place for place, picture in enumerate(pictures) if torch.equal(picture, image)) for image in images]


def test_flux_draws_a_batch_with_its_own_seeds() -> None:
    prior: Any = tiny_prior(tiny_flux())
    (images,) = KintsugiFluxGen().draw(prior, "", 64, 32, 2, 3, 2.5, 7)
    assert torch.equal(images, generate(prior, "", 7, Drawing(64, 32, 3, 2.5), 2))
    assert torch.equal(KintsugiFluxGen().draw(prior, "", 64, 32, 1, 3, 2.5, 8)[0], images[1:])


def test_widgets_stand_in_the_order_that_workflows_keep() -> None:
    assert list(KintsugiFluxGen.INPUT_TYPES()["required"]) == ["prior", "prompt", "width", "height", "count", "steps", "guidance", "seed"]
    assert list(KintsugiSelectByQuality.INPUT_TYPES()["required"]) == ["image", "metrics", "keep"]


def test_the_worst_twentieth_by_each_measure_goes() -> None:
    assert kept("noise", 95) == list(range(20))
    assert kept("sharpness", 95) == list(range(1, 21))
    assert kept("noise, sharpness", 95) == list(range(1, 20))
    assert kept("noise", 50) == list(range(11))
    assert kept("noise", 100) == list(range(21))


def test_the_report_tells_what_was_asked_for_and_each_picture() -> None:
    head, *rows = KintsugiSelectByQuality().select(NOISY, "noise", 95)["result"][1].splitlines()
    bound, second, last = (measure(planes(NOISY[place]), None, ["noise"])["noise"] for place in (19, 1, 20))
    assert head == f"20 of 21 kept: noise at most {bound:.4f}"
    assert len(rows) == 21 and rows[1] == f"2: kept, noise {second:.4f} levels" and rows[20] == f"21: dropped, noise {last:.4f} levels"


def test_the_chart_has_each_picture_with_its_verdict() -> None:
    chart = KintsugiSelectByQuality().select(NOISY, "noise", 95)["ui"]["kintsugi_quality"]
    assert [entry["kept"] for entry in chart] == [True] * 20 + [False]
    assert chart[3]["scores"] == [
        {"metric": "noise", "value": measure(planes(NOISY[3]), None, ["noise"])["noise"], "unit": "levels", "higher_is_better": False}
    ]


def test_without_names_and_pyiqa_measures_without_weights_choose_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kintsugi"):
        images, report = KintsugiSelectByQuality().select(NOISY, "", 95)["result"]
    assert "Selecting by sharpness, noise, blockiness" in caplog.text
    assert 15 <= len(images) < 20 and "sharpness at least" in report and "blockiness at most" in report


def test_a_batch_of_which_none_passes_is_told_instead_of_an_empty_one() -> None:
    with pytest.raises(BadValueError, match=r"None of 2 pictures passes by all of noise, sharpness\. Raise keep"):
        kept("noise, sharpness", 95, NOISY[:2])
    assert kept("noise", 95, NOISY[:1]) == [0]


def test_alpha_is_passed_on_and_not_measured() -> None:
    with_alpha = torch.cat([NOISY, torch.rand(21, 32, 32, 1)], dim=3)
    images, _ = KintsugiSelectByQuality().select(with_alpha, "noise", 95)["result"]
    assert torch.equal(images, with_alpha[:20])
