"""Allocation: every rule and tie rule divides the funds exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_benchmark.allocation import RULES, TIE_RULES, allocate, largest_remainder

FUNDS = st.one_of(st.integers(0, 200), st.integers(0, 10**38))
MERITS = st.lists(st.builds(Fraction, st.integers(0, 20), st.just(20)), max_size=30).map(
    lambda merits: sorted(merits, reverse=True)
)
DISTINCT = st.sets(st.integers(0, 1000), min_size=1, max_size=30).map(
    lambda values: [Fraction(value, 1000) for value in sorted(values, reverse=True)]
)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tie_rule", TIE_RULES)
@given(funds=FUNDS, merits=MERITS)
def test_payouts_sum_to_the_funds_and_none_is_negative(
    rule: str, tie_rule: str, funds: int, merits: list[Fraction]
) -> None:
    payouts = allocate(funds, merits, rule=rule, tie_rule=tie_rule)
    assert len(payouts) == len(merits)
    assert sum(payouts) == (funds if merits else 0)
    assert all(units >= 0 for units in payouts)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tie_rule", TIE_RULES)
@given(funds=FUNDS, merits=MERITS)
def test_a_better_rank_is_never_paid_less(
    rule: str, tie_rule: str, funds: int, merits: list[Fraction]
) -> None:
    payouts = allocate(funds, merits, rule=rule, tie_rule=tie_rule)
    assert list(payouts) == sorted(payouts, reverse=True)


@pytest.mark.parametrize("rule", RULES)
@given(funds=FUNDS, merits=MERITS)
def test_split_ties_are_equal_to_within_one_unit_and_keep_each_ties_sum(
    rule: str, funds: int, merits: list[Fraction]
) -> None:
    whole = allocate(funds, merits, rule=rule, tie_rule="earliest")
    divided = allocate(funds, merits, rule=rule, tie_rule="split")
    for merit in set(merits):
        tie = [place for place, other in enumerate(merits) if other == merit]
        paid = [divided[place] for place in tie]
        assert sum(paid) == sum(whole[place] for place in tie)
        assert max(paid) - min(paid) <= 1
        assert paid == sorted(paid, reverse=True), "the odd units go to the earlier joins"


@pytest.mark.parametrize("rule", RULES)
@given(funds=FUNDS, merits=DISTINCT)
def test_without_ties_both_tie_rules_agree(rule: str, funds: int, merits: list[Fraction]) -> None:
    assert allocate(funds, merits, rule=rule, tie_rule="split") == allocate(
        funds, merits, rule=rule, tie_rule="earliest"
    )


@given(
    funds=FUNDS,
    weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any),
)
def test_rounding_stays_within_one_unit_of_the_exact_share(funds: int, weights: list[int]) -> None:
    total = sum(weights)
    for units, weight in zip(largest_remainder(funds, weights), weights, strict=True):
        assert abs(units - Fraction(funds * weight, total)) < 1


@pytest.mark.parametrize("entries", [0, 1, 10, 11, 10_000])
@pytest.mark.parametrize("funds", [0, 1, 10**38])
@pytest.mark.parametrize("rule", RULES)
def test_the_sizes_that_occur_are_divided_exactly(rule: str, funds: int, entries: int) -> None:
    merits = [Fraction(entries - place, entries) for place in range(entries)]
    for tie_rule in TIE_RULES:
        payouts = allocate(funds, merits, rule=rule, tie_rule=tie_rule)
        assert len(payouts) == entries
        assert sum(payouts) == (funds if entries else 0)


@pytest.mark.parametrize("entries", [10, 11, 500])
def test_arithmetic_decrease_of_a_hundred_units_over_ten_or_more(entries: int) -> None:
    merits = [Fraction(entries - place, entries) for place in range(entries)]
    payouts = allocate(100, merits, rule="ArithmeticDecrease", tie_rule="earliest")
    assert payouts[:10] == (18, 16, 15, 13, 11, 9, 7, 5, 4, 2)
    assert not any(payouts[10:])


@given(entries=st.integers(1, 30), scale=st.integers(0, 10**30))
def test_arithmetic_decrease_pays_its_formula(entries: int, scale: int) -> None:
    paid = min(entries, 10)
    funds = scale * paid * (paid + 1) // 2
    merits = [Fraction(entries - place, entries) for place in range(entries)]
    payouts = allocate(funds, merits, rule="ArithmeticDecrease", tie_rule="earliest")
    assert payouts == tuple(scale * max(paid - place, 0) for place in range(entries))


@given(funds=FUNDS, entries=st.integers(1, 30))
def test_the_winner_takes_all(funds: int, entries: int) -> None:
    merits = [Fraction(1, place + 1) for place in range(entries)]
    payouts = allocate(funds, merits, rule="WinnerTakesAll", tie_rule="earliest")
    assert payouts == (funds,) + (0,) * (entries - 1)


def test_two_tied_winners_split_an_odd_prize_and_the_earlier_join_gets_the_odd_unit() -> None:
    tied = [Fraction(1, 2), Fraction(1, 2), Fraction(1, 3)]
    assert allocate(7, tied, rule="WinnerTakesAll", tie_rule="split") == (4, 3, 0)
    assert allocate(7, tied, rule="WinnerTakesAll", tie_rule="earliest") == (7, 0, 0)


def test_proportional_pays_by_score_and_equally_where_all_scores_are_zero() -> None:
    scores = [Fraction(3, 4), Fraction(1, 4), Fraction(0)]
    assert allocate(100, scores, rule="Proportional", tie_rule="earliest") == (75, 25, 0)
    nothing = [Fraction(0)] * 3
    assert allocate(100, nothing, rule="Proportional", tie_rule="earliest") == (34, 33, 33)


def test_top_heavy_pays_each_rank_twice_the_next() -> None:
    merits = [Fraction(1, place + 1) for place in range(4)]
    assert allocate(150, merits, rule="TopHeavy", tie_rule="earliest") == (80, 40, 20, 10)


def test_merits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="best first"):
        allocate(1, [Fraction(0), Fraction(1)], rule="Equal", tie_rule="earliest")


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [2, -1]])
def test_weights_that_divide_nothing_are_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        largest_remainder(1, weights)
