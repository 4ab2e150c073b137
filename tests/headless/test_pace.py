from __future__ import annotations

import pytest
from kintsugi.headless.pace import Pace, human_rate, human_time


def after(*advances: tuple[float, int]) -> Pace:
    pace = Pace(0.0)
    for now, steps in advances:
        pace.advance(now, steps)
    return pace


def test_nothing_is_said_before_there_is_something_to_judge_by() -> None:
    assert after().words(5) == ""
    assert after((0.1, 1), (0.2, 1)).words(5) == ""
    assert after((2.0, 1)).words(5) == "0.5/s, 10 s left"


def test_when_all_is_done_only_the_rate_is_told() -> None:
    assert after((2.0, 1), (4.0, 1)).words(0) == "0.5/s"


def test_the_rate_is_that_of_the_last_minute() -> None:
    slow, quick = [(10.0 * i, 1) for i in range(1, 31)], [(300 + 0.5 * i, 1) for i in range(1, 181)]
    assert after(*slow).per_second() == pytest.approx(0.1)
    assert after(*slow, *quick).per_second() == pytest.approx(2.0)


def test_slow_work_is_judged_by_several_pictures_and_not_by_one_minute() -> None:
    assert after(*((200.0 * i + 50 * (i % 2), 1) for i in range(1, 21))).per_second() == pytest.approx(1 / 200, rel=0.05)


@pytest.mark.parametrize("kept", [[(0.001, 20_000)], [(0.002 * i, 1) for i in range(1, 20_001)]], ids=["at once", "one by one"])
def test_kept_pictures_do_not_count_as_soon_as_one_is_restored(kept: list[tuple[float, int]]) -> None:
    begun = kept[-1][0]
    assert after(*kept, (begun + 10, 1)).per_second() == pytest.approx(0.1)
    assert after(*kept, (begun + 10, 1), (begun + 20, 1)).words(360) == "6.0/min, 1 h 0 min left"


def test_a_picture_restored_before_the_kept_ones_does_not_hide_their_burst() -> None:
    burst = [(10 + 0.001 * i, 1) for i in range(1, 5001)]
    assert after((10, 1), *burst, (35, 1), (55, 1)).per_second() == pytest.approx(0.05)


def test_workers_that_finish_together_are_counted_together() -> None:
    clumps = [(10.0 * clump + 0.02 * worker, 1) for clump in range(1, 13) for worker in range(8)]
    assert after(*clumps).per_second() == pytest.approx(0.8, rel=0.03)


def test_many_quick_steps_keep_the_memory_small() -> None:
    pace = after(*((0.01 * i, 1) for i in range(1, 30_001)))
    assert pace.per_second() == pytest.approx(100)
    assert len(pace._marks) < 300


@pytest.mark.parametrize(
    ("per_second", "words"), [(100, "100.0/s"), (12.34, "12.3/s"), (0.8, "0.8/s"), (0.4, "24.0/min"), (0.01, "0.6/min"), (0.001, "3.6/h")]
)
def test_a_rate_is_told_in_the_unit_that_reads_well(per_second: float, words: str) -> None:
    assert human_rate(per_second) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.3, "0 s"), (8, "8 s"), (59.7, "1 min 0 s"), (320, "5 min 20 s"), (49_920, "13 h 52 min"), (273_600, "3 d 4 h")],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert human_time(seconds) == words
