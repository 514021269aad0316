"""The payout plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.values import parse_request_id, parse_tags
from evalpool_benchmark.allocation import RULES, TIE_RULES
from evalpool_benchmark.entry import Entry, EntryState
from evalpool_benchmark.payout import (
    Contribution,
    PayoutLine,
    cut,
    payout_request,
    payout_tags,
    plan,
    refund_request,
    refund_tags,
    returns_contributions,
)
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.ranking import rank

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POOL = Pool(
    id="P" * 43,
    sequence=1,
    title="",
    funder="funder",
    dataset="siqa",
    dataset_version="v",
    dataset_owner="owner",
    question_count=10,
    evaluator="loglikelihood",
    allocation="ArithmeticDecrease",
    tie_rule="earliest",
    start_time=NOW,
    end_time=NOW + timedelta(days=30),
    grace=timedelta(),
)


def entry(order: int, points: int, participant: int, state: EntryState, prize_free: bool) -> Entry:
    return Entry(
        id=f"entry-{order}",
        pool=POOL.id,
        subject=f"subject-{order}",
        subject_name="",
        participant=f"participant-{participant}",
        state=state,
        join_time=NOW,
        join_order=order,
        points=points,
        full_marks=4,
        done=10,
        total=10,
        prize_free=prize_free,
    )


ENTRIES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 8), st.sampled_from(EntryState), st.booleans()),
    max_size=14,
).map(lambda rows: [entry(order, *row) for order, row in enumerate(rows)])
CONTRIBUTIONS = st.lists(st.integers(1, 10**38), min_size=1, max_size=6).map(
    lambda quantities: [
        Contribution(f"transfer-{n}", f"payer-{n % 2}", quantity, NOW, n)
        for n, quantity in enumerate(quantities)
    ]
)


@given(ENTRIES, CONTRIBUTIONS, st.sampled_from(list(RULES)), st.sampled_from(list(TIE_RULES)))
def test_what_full_marks_are_changes_no_plan_where_the_scores_are_the_same(
    entries: list[Entry], contributions: list[Contribution], rule: str, tie_rule: str
) -> None:
    pool = replace(POOL, allocation=rule, tie_rule=tie_rule, minimum_score="1/4")
    finer = [replace(e, points=5 * e.points, full_marks=5 * e.full_marks) for e in entries]
    mixed = [new if n % 2 else old for n, (old, new) in enumerate(zip(entries, finer, strict=True))]
    first = plan(pool, rank(entries, pool.minimum), contributions)
    assert plan(pool, rank(finer, pool.minimum), contributions) == first
    assert plan(pool, rank(mixed, pool.minimum), contributions) == first


@given(ENTRIES, CONTRIBUTIONS, st.sampled_from(list(RULES)), st.sampled_from(list(TIE_RULES)))
def test_a_plan_pays_exactly_what_was_contributed(
    entries: list[Entry], contributions: list[Contribution], rule: str, tie_rule: str
) -> None:
    pool = replace(POOL, allocation=rule, tie_rule=tie_rule)
    lines = plan(pool, rank(entries), contributions)
    assert sum(line.quantity for line in lines) == sum(c.quantity for c in contributions)
    assert all(line.quantity > 0 for line in lines)
    assert [line.line for line in lines] == list(range(len(lines)))
    winners = [line.recipient for line in lines if line.entry]
    assert len(winners) == len(set(winners)), "one entry a participant"
    by_id = {each.id: each for each in entries}
    for line in lines:
        if line.entry:
            assert by_id[line.entry].state is EntryState.SCORED
            assert by_id[line.entry].participant == line.recipient
            assert not by_id[line.entry].prize_free


@given(CONTRIBUTIONS)
def test_without_an_eligible_entry_every_contribution_goes_back_to_its_payer(
    contributions: list[Contribution],
) -> None:
    lines = plan(POOL, rank([entry(0, 9, 0, EntryState.SCORED, True)]), contributions)
    assert returns_contributions(lines)
    assert [(line.contribution, line.recipient, line.quantity) for line in lines] == [
        (c.transfer, c.payer, c.quantity) for c in contributions
    ]


def test_entries_that_get_nothing_have_no_line() -> None:
    entries = [entry(n, 10 - n, n, EntryState.SCORED, False) for n in range(3)]
    lines = plan(POOL, rank(entries), [Contribution("transfer", "payer", 1, NOW, 1)])
    assert [(line.entry, line.rank, line.quantity) for line in lines] == [("entry-0", 1, 1)]
    assert not returns_contributions(lines)


def test_a_payout_shows_the_rank_of_the_leaderboard() -> None:
    entries = [
        entry(0, 9, 0, EntryState.SCORED, True),  # ranks first and takes no prize
        entry(1, 8, 1, EntryState.SCORED, False),
    ]
    (line,) = plan(POOL, rank(entries), [Contribution("transfer", "payer", 5, NOW, 1)])
    assert (line.entry, line.rank, line.quantity) == ("entry-1", 2, 5)


@pytest.mark.parametrize(
    ("size", "batches"), [(1, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (3, [0, 0, 0, 1]), (4, [0] * 4)]
)
def test_a_plan_is_cut_into_batches_that_the_ledger_takes(size: int, batches: list[int]) -> None:
    lines = [PayoutLine(line, "entry", 1, "recipient", 1, "") for line in range(4)]
    once = cut(lines, size)
    assert [line.batch for line in once] == batches
    assert cut(once, 1) == once, "what is cut stays so, whatever the ledger's limit then is"


def test_batches_have_request_ids_of_their_own() -> None:
    assert payout_request("pool", 0) == "payout:pool"
    assert payout_request("pool", 1) == "payout:pool:1"


def test_request_ids_and_tags_are_what_the_ledger_takes() -> None:
    parse_request_id(payout_request(POOL.id, 12))
    parse_request_id(refund_request(POOL.id))
    winner = PayoutLine(0, "E" * 43, 1, "recipient", 1, "")
    returned = PayoutLine(0, "", 0, "payer", 1, "T" * 43)
    for tags in (
        payout_tags(POOL.id, winner),
        payout_tags(POOL.id, returned),
        refund_tags("T" * 43, "why"),
    ):
        parse_tags((tag.name, tag.value) for tag in tags)
