"""The numbers behind the chart, computed by the page's own module."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

MODULE = "/extensions/Kintsugi/quality_scale.js"


def call(page: Page, function: str, argument: Any) -> Any:
    return page.evaluate("async ([path, name, argument]) => (await import(path))[name](argument)", [MODULE, function, argument])


def score(metric: str, value: float | str, higher_is_better: bool | None = True, unit: str = "") -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": unit, "higher_is_better": higher_is_better}


@pytest.mark.parametrize(
    ("value", "end"), [(27.4, 50), (0.83, 1), (1, 1), (1.03, 2), (2, 2), (431, 500), (1000, 1000), (0.0021, 0.005), (0, 1), (-3, 1)]
)
def test_a_scale_ends_at_a_round_number(page: Page, value: float, end: float) -> None:
    assert call(page, "roundEnd", value) == pytest.approx(end)


@pytest.mark.parametrize(
    ("value", "text"),
    [(27.41234, "27.41"), (0.831249, "0.8312"), (1234.5, "1235"), (0, "0.000"), (-0.25, "-0.2500"), ("inf", "\u221e"), ("nan", "nan")],
)
def test_values_are_written_with_four_digits(page: Page, value: float | str, text: str) -> None:
    assert call(page, "valueText", value) == text


def test_bars_are_grouped_by_measure_and_the_best_is_known(page: Page) -> None:
    pictures = [
        {"scores": [score("psnr", 20.0, True, "dB"), score("noise", 4.0, False)]},
        {"scores": [score("psnr", 25.0, True, "dB"), score("noise", 8.0, False)], "kept": False},
    ]
    psnr, noise = call(page, "measuresOf", pictures)
    assert (psnr["unit"], psnr["direction"], psnr["end"]) == ("dB", "higher is better", 50)
    assert [(bar["picture"], bar["length"], bar["best"], bar["kept"]) for bar in psnr["bars"]] == [
        (1, 0.4, False, True),
        (2, 0.5, True, False),
    ]
    assert noise["direction"] == "lower is better" and [bar["best"] for bar in noise["bars"]] == [True, False]


def test_values_without_a_number_and_below_zero_have_whole_and_empty_bars(page: Page) -> None:
    (measure,) = call(page, "measuresOf", [{"scores": [score("psnr", value)]} for value in ("nan", -3.0, "inf", 10.0)])
    assert [bar["length"] for bar in measure["bars"]] == [0, 0, 1, 1]
    assert [bar["best"] for bar in measure["bars"]] == [False, False, True, False]


def test_a_measure_without_direction_and_a_single_picture_have_no_best(page: Page) -> None:
    (sharpness,) = call(page, "measuresOf", [{"scores": [score("sharpness", value, None)]} for value in (1.0, 2.0)])
    assert sharpness["direction"] == "neither more nor less is better" and not any(bar["best"] for bar in sharpness["bars"])
    (single,) = call(page, "measuresOf", [{"scores": [score("psnr", 20.0)]}])
    assert not single["bars"][0]["best"]
