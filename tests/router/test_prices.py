from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from evalpool_router.hold import HeldUnits
from evalpool_router.prices import Flaw, Prices, objection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = HeldUnits("h", "payer", "router", 10, True, NOW)

fees = st.integers(0, 10**18)
tokens = st.integers(0, 10**9)
multipliers = st.fractions(min_value=1, max_value=10**9, max_denominator=10**9)


@given(fees, fees, tokens, multipliers, st.integers(0, 10**39 - 1))
def test_a_charge_is_the_price_and_never_more_than_is_held(
    base: int, fee: int, used: int, multiplier: Fraction, held: int
) -> None:
    prices = Prices(base, fee)
    charge = prices.charge(used, multiplier, held)
    assert 0 <= charge <= held
    assert charge == held or 0 <= charge - (base + used * fee) * multiplier < 1


@given(fees, fees, tokens, tokens, multipliers)
def test_more_tokens_never_cost_less(
    base: int, fee: int, used: int, more: int, multiplier: Fraction
) -> None:
    prices = Prices(base, fee)
    assert prices.price(used, multiplier) <= prices.price(used + more, multiplier)


def test_a_price_is_rounded_up_to_a_whole_unit() -> None:
    assert Prices(1, 2).price(3, Fraction("1.5")) == 11
    assert Prices(1, 0).price(3, Fraction("1.000000001")) == 2


def test_a_hold_is_good_only_for_its_holder_at_its_recipient_open_lasting_and_enough() -> None:
    def flaw(hold: HeldUnits) -> Flaw | None:
        found = objection(hold, payer="payer", router="router", price=10, until=NOW)
        return None if found is None else found.flaw

    assert flaw(GOOD) is None
    assert flaw(replace(GOOD, holder="thief")) is Flaw.HOLDER
    assert flaw(replace(GOOD, recipient="other")) is Flaw.RECIPIENT
    assert flaw(replace(GOOD, is_open=False)) is Flaw.SETTLED
    assert flaw(replace(GOOD, expire_time=NOW - timedelta(seconds=1))) is Flaw.EXPIRES
    assert flaw(replace(GOOD, quantity=9)) is Flaw.SMALL
