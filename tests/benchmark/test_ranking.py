"""Ranks, ties and eligibility."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_benchmark.entry import Entry, EntryState, cut_off
from evalpool_benchmark.ranking import Z_95, eligible, merit, rank, wilson_interval

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def scored(order: int, points: int, total: int = 10, full_marks: int = 1, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "id": f"entry-{order}",
        "pool": "pool",
        "subject": f"subject-{order}",
        "subject_name": "",
        "participant": f"participant-{order}",
        "state": EntryState.SCORED,
        "join_time": NOW,
        "join_order": order,
        "points": points,
        "full_marks": full_marks,
        "done": total,
        "total": total,
    }
    return Entry(**{**values, **changes})


@st.composite
def boards(draw: st.DrawFn) -> list[Entry]:
    entries = []
    for order in range(draw(st.integers(0, 12))):
        total = draw(st.integers(0, 6))
        done = draw(st.integers(0, total))
        full_marks = draw(st.sampled_from([1, 4, 10]))
        entries.append(
            scored(
                order,
                draw(st.integers(0, done * full_marks)),
                total,
                full_marks,
                done=done,
                state=draw(st.sampled_from(EntryState)),
                participant=f"participant-{draw(st.integers(0, 4))}",
                prize_free=draw(st.booleans()),
            )
        )
    return draw(st.permutations(entries))


@given(boards())
def test_ranks_are_one_more_than_the_number_of_better_entries(entries: list[Entry]) -> None:
    places = rank(entries)
    assert sorted(p.entry.id for p in places) == sorted(e.id for e in entries)
    merits = [p.merit for p in places if p.merit is not None]
    assert merits == sorted(merits, reverse=True)
    for place in places:
        if place.merit is None:
            assert place.rank == 0
            continue
        assert place.rank == 1 + sum(other > place.merit for other in merits)
        assert len(place.tied_with) == merits.count(place.merit) - 1
        assert place.entry.id not in place.tied_with


@given(boards())
def test_equals_stand_in_the_order_of_joining(entries: list[Entry]) -> None:
    places = rank(entries)
    for before, after in pairwise(places):
        if before.merit == after.merit:
            assert before.entry.join_order < after.entry.join_order


@given(boards(), st.one_of(st.none(), st.fractions(0, 1)))
def test_only_complete_entries_above_the_minimum_take_part_one_a_participant(
    entries: list[Entry], minimum: Fraction | None
) -> None:
    places = rank(entries, minimum)
    taking_part = eligible(places)
    for place in taking_part:
        entry = place.entry
        assert entry.state is EntryState.SCORED
        assert entry.done == entry.total > 0
        assert not entry.prize_free
        most = entry.total * entry.full_marks
        assert minimum is None or Fraction(entry.points, most) > minimum
    participants = [place.entry.participant for place in taking_part]
    assert len(participants) == len(set(participants))
    # Whoever has an entry that could take part has one that does, and no better one.
    for place in places:
        if place.entry.participant not in participants:
            assert place.ineligible_reason
        elif "best entry" in place.ineligible_reason:
            best = next(p for p in taking_part if p.entry.participant == place.entry.participant)
            assert best.rank <= place.rank


def test_an_entry_without_a_score_never_ranks_first() -> None:
    waiting = scored(0, 0, done=0, state=EntryState.QUEUED)
    failed = scored(1, 9, state=EntryState.FAILED)
    poor = scored(2, 0)
    places = rank([waiting, failed, poor])
    assert [place.entry.id for place in places] == ["entry-2", "entry-0", "entry-1"]
    assert [place.rank for place in places] == [1, 0, 0]


def test_ties_share_a_rank_and_the_next_one_is_skipped() -> None:
    places = rank([scored(0, 5), scored(1, 7), scored(2, 7), scored(3, 4)])
    assert [(place.entry.id, place.rank) for place in places] == [
        ("entry-1", 1),
        ("entry-2", 1),
        ("entry-0", 3),
        ("entry-3", 4),
    ]
    assert places[0].tied_with == ("entry-2",)


def test_equal_fractions_of_different_counts_and_full_marks_tie_exactly() -> None:
    third = scored(0, 1, 3)
    same = scored(1, 111_111_111, 333_333_333)
    graded = scored(2, 50, 15, full_marks=10)
    assert [place.rank for place in rank([third, same, graded])] == [1, 1, 1]


@given(
    points=st.integers(0, 99),
    full_marks=st.sampled_from([1, 4, 10]),
    others=st.lists(st.integers(0, 100), max_size=8),
)
def test_one_more_point_never_ranks_an_entry_lower(
    points: int, full_marks: int, others: list[int]
) -> None:
    def rank_with(points: int) -> int:
        board = [scored(order, each, 10, 10) for order, each in enumerate(others, start=1)]
        this = scored(0, points, 100 // full_marks, full_marks)
        return next(place.rank for place in rank([*board, this]) if place.entry.id == "entry-0")

    points = min(points, 100 // full_marks * full_marks - 1)
    assert rank_with(points + 1) <= rank_with(points)


def test_where_answers_are_graded_points_count_and_not_how_many_had_full_marks() -> None:
    even = scored(0, 60, full_marks=10, correct=0)
    extreme = scored(1, 50, full_marks=10, correct=5)
    assert [place.entry.id for place in rank([extreme, even])] == ["entry-0", "entry-1"]


def test_progress_counts_as_much_as_the_score() -> None:
    half_way = scored(0, 5, 10, done=5, state=EntryState.RUNNING)
    assert merit(half_way) == Fraction(1, 2)
    assert rank([half_way, scored(1, 6)])[0].entry.id == "entry-1"


def test_a_disqualified_entry_makes_way_for_the_participants_next_best() -> None:
    best = scored(0, 9, participant="somebody", state=EntryState.DISQUALIFIED, reason="a copy")
    next_best = scored(1, 8, participant="somebody")
    places = rank([best, next_best])
    assert [place.entry.id for place in eligible(places)] == ["entry-1"]
    assert places[-1].ineligible_reason == "Disqualified: a copy"


def test_a_score_at_the_minimum_does_not_lie_above_it() -> None:
    assert eligible(rank([scored(0, 5)], Fraction(1, 2))) == ()
    assert len(eligible(rank([scored(0, 6)], Fraction(1, 2)))) == 1
    assert eligible(rank([scored(0, 50, full_marks=10)], Fraction(1, 2))) == ()
    assert len(eligible(rank([scored(0, 51, full_marks=10)], Fraction(1, 2)))) == 1


def test_an_entry_cut_off_by_the_end_keeps_its_rank_and_takes_no_part() -> None:
    late = cut_off(scored(0, 4, 10, done=8, state=EntryState.RUNNING), NOW)
    places = rank([late, scored(1, 3)])
    assert places[0].entry.id == "entry-0"
    assert places[0].rank == 1
    assert "8 of 10 questions" in places[0].ineligible_reason
    assert [place.entry.id for place in eligible(places)] == ["entry-1"]


@pytest.mark.parametrize(
    ("correct", "done", "low", "high"),
    [  # known values of the interval for these counts
        (8, 10, 0.490162, 0.943318),
        (394, 1000, 0.364200, 0.424640),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
    ],
)
def test_wilson_interval_of_known_cases(correct: int, done: int, low: float, high: float) -> None:
    interval = wilson_interval(correct, done)
    assert interval == pytest.approx((low, high), abs=1e-4)


COUNTS = st.tuples(st.integers(0, 10_000), st.sampled_from([1, 4, 10])).flatmap(
    lambda of: st.tuples(st.integers(0, of[0] * of[1]), st.just(of[0]), st.just(of[1]))
)


@given(COUNTS)
def test_the_interval_holds_the_score_and_lies_within_0_and_1(
    counts: tuple[int, int, int],
) -> None:
    points, done, full_marks = counts
    low, high = wilson_interval(points, done, full_marks)
    assert 0 <= low <= high <= 1
    if done:
        assert low - 1e-12 <= points / (done * full_marks) <= high + 1e-12


@given(st.lists(st.integers(0, 10), min_size=1, max_size=60))
def test_the_interval_of_grades_is_at_least_as_wide_as_their_own_variance_makes_it(
    grades: list[int],
) -> None:
    done = len(grades)
    low, high = wilson_interval(sum(grades), done, 10)
    mean = sum(grades) / (10 * done)
    variance = sum((grade / 10 - mean) ** 2 for grade in grades) / done
    # The same score interval, with the variance that these grades have.
    denominator = 1 + Z_95**2 / done
    spread = Z_95 * sqrt(variance / done + Z_95**2 / (4 * done**2)) / denominator
    centre = (mean + Z_95**2 / (2 * done)) / denominator
    assert low <= max(0.0, centre - spread) + 1e-9
    assert high >= min(1.0, centre + spread) - 1e-9


def test_grades_of_none_and_full_marks_have_the_interval_of_right_and_wrong_answers() -> None:
    assert wilson_interval(70, 10, 10) == wilson_interval(7, 10)
    assert wilson_interval(100, 10, 10)[1] == 1.0
