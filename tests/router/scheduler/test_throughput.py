from __future__ import annotations

import pickle

import pytest

from evalpool_router.scheduler.throughput import Throughput

BEGUN = 1000.25


def busy(throughput: Throughput, begun: float, seconds: int) -> float:
    """Five units of 7 tokens each quarter of a second; gives when the last ones were done."""
    for quarter in range(1, 4 * seconds + 1):
        throughput.add(5, 35, begun + quarter / 4)
    return begun + seconds


def test_before_anything_is_done_nothing_is_done_a_second() -> None:
    assert Throughput(BEGUN).per_second(BEGUN) == (0, 0)


def test_work_that_is_steady_is_told_as_it_is_from_the_first_second_on() -> None:
    for seconds in (1, 2, 10, 30):
        throughput = Throughput(BEGUN)
        now = busy(throughput, BEGUN, seconds)
        assert throughput.per_second(now) == (20, 140)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.75])
def test_the_second_under_way_counts_for_as_much_as_has_passed_of_it(fraction: float) -> None:
    throughput = Throughput(BEGUN)
    now = busy(throughput, 1000 + fraction, 200)
    units, tokens = throughput.per_second(now)
    # What was done at the very edge of the window counts, or does not: 5 units of 1,200.
    assert units == pytest.approx(20, abs=0.1)
    assert tokens == pytest.approx(7 * units)


def test_in_the_first_second_a_unit_is_not_taken_for_hundreds_a_second() -> None:
    throughput = Throughput(BEGUN)
    throughput.add(1, 7, BEGUN + 0.001)
    assert throughput.per_second(BEGUN + 0.002) == (1, 7)


def test_what_was_done_more_than_a_minute_ago_does_not_count() -> None:
    throughput = Throughput(0.0)
    throughput.add(600, 6000, 100.5)
    assert throughput.per_second(159.999) == pytest.approx((10, 100), rel=0.001)
    assert throughput.per_second(160.0) == (0, 0)
    throughput.add(59, 590, 200.0)
    assert throughput.per_second(200.0) == (1, 10)


def test_what_it_holds_does_not_grow_with_time_although_nobody_looks() -> None:
    throughput = Throughput(0.0)
    busy(throughput, 1000.0, 60)
    minute = len(pickle.dumps(throughput))
    busy(throughput, 1060.0, 600)
    assert len(pickle.dumps(throughput)) < 1.5 * minute
