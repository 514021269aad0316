"""The audit of pools, refunds and payouts: each rule broken once by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalpool_benchmark.audit import Audit
from evalpool_benchmark.books import Decision, PoolStanding
from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.payout import PayoutLine
from evalpool_benchmark.pool import Phase
from tests.benchmark.audited_tables import Tables, sound_tables


@pytest.fixture
def tables() -> Tables:
    return sound_tables()


def test_sound_books_agree(tables: Tables) -> None:
    assert tables.audit() == Audit(
        differences=(),
        pools=3,
        credits=8,
        contributions=4,
        pending=1,
        pending_units=7,
        refunds=2,
        refunds_due=1,
        payouts=3,
        payouts_due=0,
        balance=93,
        owed=93,
        later=0,
    )


def test_nothing_at_all_agrees() -> None:
    assert Tables({}, {}, {}, {}, {}, 0, 0).found() == []


def test_a_decision_on_a_credit_that_never_came_is_named(tables: Tables) -> None:
    tables.decisions["ghost"] = Decision("ghost", "mallory", 9, 99, FundingState.REFUNDED)

    assert tables.found()[0] == (
        "contributions: transfer ghost: the decision says that ghost brought 9 from mallory, and "
        "the ledger has no such credit"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantity": 31}, "31 from carol in entry 3"),
        ({"payer": "mallory"}, "30 from mallory in entry 3"),
        ({"sequence": 8}, "30 from carol in entry 8"),
    ],
)
def test_a_decision_that_tells_of_its_credit_otherwise_is_named(
    tables: Tables, change: dict[str, object], said: str
) -> None:
    tables.change_decision("odd", **change)

    assert tables.found()[0] == (
        "contributions: transfer odd: the ledger says 30 from carol in entry 3, and the decision "
        f"of odd says {said}"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantity": 500}, "500 from bob in entry 2"),
        ({"payer": "mallory"}, "50 from mallory in entry 2"),
        ({"sequence": 1}, "50 from bob in entry 1"),
    ],
)
def test_a_contribution_that_tells_of_its_credit_otherwise_is_named(
    tables: Tables, change: dict[str, object], said: str
) -> None:
    tables.change_contribution("more", **change)

    assert tables.found()[0] == (
        "contributions: pool paid: the ledger says 50 from bob in entry 2, and the contribution of "
        f"more says {said}"
    )


def test_a_contribution_that_nothing_was_decided_on_is_named(tables: Tables) -> None:
    del tables.decisions["more"]

    assert tables.found() == [
        "contributions: pool paid: more is a contribution, and nothing was decided on it"
    ]


def test_a_contribution_that_is_missing_is_named(tables: Tables) -> None:
    del tables.contributions["more"]

    assert tables.found()[:2] == [
        "contributions: transfer more: the decision is added and the pool paid, and it is a "
        "contribution to none",
        "contributions: pool paid: its contributions are 100, and its funds are said to be 150",
    ]


def test_a_credit_that_is_refunded_and_in_a_pool_is_named(tables: Tables) -> None:
    tables.change_decision("more", state=FundingState.REFUNDED, pool="")

    assert tables.found()[0] == (
        "contributions: transfer more: the decision is refunded and the pool none, and it is a "
        "contribution to paid"
    )


def test_a_credit_in_another_pool_than_decided_is_named(tables: Tables) -> None:
    tables.contributions["more"] = ("open", tables.contributions["more"][1])

    assert tables.found()[0] == (
        "contributions: transfer more: the decision is added and the pool paid, and it is a "
        "contribution to open"
    )


def test_a_top_up_that_is_said_to_have_made_its_pool_is_named(tables: Tables) -> None:
    tables.change_decision("more", state=FundingState.CREATED)

    assert tables.found() == [
        "contributions: transfer more: the decision is created and the pool paid, and a pool has "
        "the id of the transfer that made it"
    ]


def test_units_that_are_kept_though_somebody_paid_them_are_named(tables: Tables) -> None:
    tables.change_decision("odd too", state=FundingState.KEPT)

    assert tables.found() == ["contributions: transfer odd too: it is kept, and its payer is frank"]


def test_funds_that_nobody_contributed_are_named(tables: Tables) -> None:
    tables.pools["open"] = PoolStanding(Phase.RUNNING, 71)

    assert tables.found() == [
        "contributions: pool open: its contributions are 70, and its funds are said to be 71"
    ]


def test_a_pool_that_no_transfer_made_is_named(tables: Tables) -> None:
    tables.pools["free"] = PoolStanding(Phase.RUNNING, 0)

    assert tables.found() == [
        "contributions: pool free: it is there, and no transfer was decided to make it"
    ]


def test_contributions_to_a_pool_that_is_gone_are_named(tables: Tables) -> None:
    del tables.pools["open"]

    assert tables.found() == ["contributions: pool open: 70 were contributed, and there is no pool"]


def test_a_refund_that_the_ledger_does_not_have_is_named(tables: Tables) -> None:
    tables.change_decision("odd too", refund="imagined")

    assert tables.found() == [
        "refunds: transfer odd too: imagined is said to have refunded it, and the ledger has "
        "nothing under refund:odd too"
    ]


@pytest.mark.parametrize(
    ("change", "paid"),
    [({"quantity": 29}, "29 to carol"), ({"recipient": "mallory"}, "30 to mallory")],
)
def test_a_refund_that_was_made_otherwise_is_named(
    tables: Tables, change: dict[str, object], paid: str
) -> None:
    tables.change_movement(4, **change)

    assert tables.found()[0] == (
        f"refunds: transfer odd: in entry 4 the ledger paid {paid}, and the refund is 30 to carol"
    )


def test_a_refund_with_the_receipt_of_another_is_named(tables: Tables) -> None:
    tables.change_decision("odd", refund="first")

    assert tables.found() == [
        "refunds: transfer odd: on the ledger the refund was paid by back, and its receipt is first"
    ]


def test_a_refund_made_twice_is_named(tables: Tables) -> None:
    tables.payment("again", "carol", 30, "refund:odd")

    assert tables.found()[0] == "refunds: transfer odd: the ledger refunds it again in entry 13"


def test_a_receipt_of_what_is_no_refund_is_named(tables: Tables) -> None:
    tables.change_decision("more", refund="back")

    assert tables.found() == [
        "refunds: transfer more: it is added, and back is said to have refunded it"
    ]


def test_a_refund_that_nobody_decided_is_named(tables: Tables) -> None:
    tables.payment("stray", "mallory", 1, "refund:new")
    tables.known_up_to = 13

    assert tables.found() == [
        "refunds: transfer stray: in entry 13 the ledger paid 1 to mallory under refund:new, and "
        "no such payment was decided",
        "account: account benchmark: the ledger says that it has 92, and 93 is owed",
    ]


def test_a_plan_that_pays_more_than_was_contributed_is_named(tables: Tables) -> None:
    tables.change_line("paid", 0, quantity=91)

    assert tables.found() == [
        "payouts: pool paid: its contributions are 150, and its plan is to pay 151",
        "payouts: pool paid: in entry 6 the ledger paid 90 to winner, and line 0 is 91 to winner",
    ]


def test_a_payout_to_another_is_named(tables: Tables) -> None:
    tables.change_movement(7, recipient="mallory")

    assert tables.found() == [
        "payouts: pool paid: in entry 7 the ledger paid 60 to mallory, and line 1 is 60 to "
        "runner-up"
    ]


def test_a_payout_that_the_ledger_does_not_have_is_named(tables: Tables) -> None:
    del tables.movements[7]
    tables.balance += 60

    assert tables.found() == [
        "payouts: pool paid: second is said to have paid line 1, 60 to runner-up, and the ledger "
        "has no such payout"
    ]


def test_a_payout_made_twice_is_named(tables: Tables) -> None:
    tables.payment("again", "winner", 90, "payout:paid")

    assert tables.found()[0] == (
        "payouts: pool paid: payout:paid is 1 lines of the plan, and the ledger has 2 transfers "
        "under it"
    )
    assert tables.found()[-1] == (
        "account: account benchmark: the ledger says that it has 3, and 93 is owed"
    )


def test_a_receipt_of_another_payout_is_named(tables: Tables) -> None:
    tables.change_line("paid", 0, transfer="second")

    assert tables.found() == [
        "payouts: pool paid: on the ledger line 0 was paid by first, and its receipt is second"
    ]


def test_a_paid_pool_without_a_receipt_is_named(tables: Tables) -> None:
    tables.change_line("paid", 1, transfer="")

    assert tables.found() == [
        "payouts: pool paid: it is paid, and line 1, 60 to runner-up, has no receipt"
    ]


def test_a_pool_that_is_settled_without_a_plan_is_named(tables: Tables) -> None:
    tables.plans["open"] = []
    tables.pools["open"] = PoolStanding(Phase.PAID, 70)

    assert tables.found() == [
        "payouts: pool open: its contributions are 70, and its plan is to pay 0",
        "account: account benchmark: the ledger says that it has 93, and 23 is owed",
    ]


def test_a_pool_with_a_plan_that_still_runs_is_named(tables: Tables) -> None:
    tables.pools["nobody"] = PoolStanding(Phase.RUNNING, 20)

    assert tables.found()[0] == "payouts: pool nobody: it has a plan, and is still running"


def test_a_plan_without_a_pool_is_named(tables: Tables) -> None:
    tables.plans["gone"] = [PayoutLine(0, "entry", 1, "mallory", 1, "", "", None)]

    assert tables.found()[0] == "payouts: pool gone: it has a plan, and there is no pool"


@pytest.mark.parametrize(
    ("phase", "pool", "said"),
    [
        (Phase.RETURNED, "paid", "it is returned, and its plan pays entries"),
        (Phase.PAID, "nobody", "it is paid, and its plan returns contributions"),
    ],
)
def test_a_pool_that_is_settled_otherwise_than_planned_is_named(
    tables: Tables, phase: Phase, pool: str, said: str
) -> None:
    tables.pools[pool] = replace(tables.pools[pool], phase=phase)

    assert tables.found() == [f"payouts: pool {pool}: {said}"]


def test_a_pool_that_is_both_paid_and_returned_is_named(tables: Tables) -> None:
    tables.change_line("paid", 1, entry="", rank=0, recipient="bob", quantity=50, contribution="x")
    tables.change_line("paid", 0, quantity=100)

    assert (
        "payouts: pool paid: its plan returns contributions, and not each of them once to its payer"
        in tables.found()
    )
    assert "payouts: pool paid: it is paid, and its plan returns contributions" in tables.found()


def test_a_payment_that_no_plan_has_is_named(tables: Tables) -> None:
    tables.payment("theft", "mallory", 7, "mine")
    tables.known_up_to = 13

    assert tables.found() == [
        "payouts: transfer theft: in entry 13 the ledger paid 7 to mallory under mine, and no such "
        "payment was decided",
        "account: account benchmark: the ledger says that it has 86, and 93 is owed",
    ]


def test_a_payment_made_after_the_books_were_read_is_not_compared(tables: Tables) -> None:
    tables.payment("later", "dan", 70, "payout:open")

    found = tables.audit()

    assert found.differences == ()
    assert (found.later, found.balance, found.owed) == (1, 23, 23)


def test_what_is_planned_and_not_sent_is_owed(tables: Tables) -> None:
    tables.pools["open"] = PoolStanding(Phase.PAYING, 70)
    tables.plans["open"] = [PayoutLine(0, "entry-3", 1, "dan", 70, "")]

    found = tables.audit()

    assert (found.differences, found.payouts_due, found.owed) == ((), 1, 93)


def test_a_payout_whose_receipt_is_on_its_way_agrees(tables: Tables) -> None:
    tables.pools["paid"] = PoolStanding(Phase.PAYING, 150)
    tables.change_line("paid", 0, transfer="")
    tables.change_line("paid", 1, transfer="")
    tables.change_decision("odd", refund="")

    assert tables.found() == []


def test_a_balance_that_is_not_what_is_owed_is_named(tables: Tables) -> None:
    tables.balance = 1_000_000

    assert tables.found() == [
        "account: account benchmark: the ledger says that it has 1,000,000, and 93 is owed"
    ]
