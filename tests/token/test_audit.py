"""What the audit finds, when somebody changed the tables by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from evalpool_token.audit import audit
from evalpool_token.entries import Account, Entry, Head, Hold, HoldState, sealed
from evalpool_token.ledger import Draft, Payment

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Tables:
    """A small ledger: alice was given 100, sent 30 to bob, and holds 20 for carol who took 15."""

    entries: list[Entry]
    accounts: dict[str, Account]
    holds: dict[str, Hold]
    head: Head

    def problems(self) -> list[str]:
        return list(audit(self.entries, self.accounts.values(), self.holds.values(), self.head))


@pytest.fixture
def tables() -> Tables:
    draft = Draft("L" * 43, Head(), [], NOW)
    draft.mint("operator", "alice", 100, "m")
    draft.transfer("alice", [Payment("bob", 30)], "t")
    draft.capture(draft.hold("alice", "carol", 20, timedelta(hours=1), "h"), 15)
    draft.hold("bob", "carol", 5, timedelta(hours=1), "h")
    draft.burn("carol", 1, "b")
    holds = {hold.id: hold for hold in draft.holds}
    return Tables(draft.entries, dict(draft.accounts), holds, draft.head)


def test_a_sound_ledger_has_no_problems(tables: Tables) -> None:
    assert tables.accounts == {
        "alice": Account("alice", 55, 0),
        "bob": Account("bob", 25, 5),
        "carol": Account("carol", 14, 0),
    }
    assert tables.problems() == []


def test_an_account_that_has_too_much_is_named(tables: Tables) -> None:
    tables.accounts["bob"] = Account("bob", 26, 5)

    problems = tables.problems()

    assert problems[0] == "bob has (26, 5), and the log says (25, 5)"
    assert problems[-1] == "the accounts hold 100 together, and the supply is 99"


def test_an_account_that_the_log_does_not_know_is_named(tables: Tables) -> None:
    tables.accounts["dave"] = Account("dave", 7, 0)

    assert tables.problems()[0] == "dave has (7, 0), and the log says (0, 0)"


def test_postings_and_accounts_changed_to_fit_one_another_are_found(tables: Tables) -> None:
    sent = tables.entries[1]
    to_alice, to_bob = sent.postings
    tables.entries[1] = replace(sent, postings=(to_alice, replace(to_bob, account="mallory")))
    tables.accounts["mallory"] = Account("mallory", 30, 0)
    tables.accounts["bob"] = Account("bob", -5, 5)

    assert tables.problems()[0] == "entry 2 does not do what its postings say"


def test_an_entry_changed_with_everything_that_follows_from_it_breaks_the_chain(
    tables: Tables,
) -> None:
    changed = sealed(replace(tables.entries[1], recipient="mallory"))
    tables.entries[1] = changed

    assert "entry 3 does not follow from the entry before it" in tables.problems()


def test_a_log_that_was_cut_off_is_found(tables: Tables) -> None:
    del tables.entries[-1]

    assert tables.problems()[0] == "the head is at 6, and the log ends at 5"


def test_a_head_with_another_hash_is_found(tables: Tables) -> None:
    tables.head = replace(tables.head, hash="f" * 64)

    assert tables.problems() == ["the head's hash is not that of entry 6"]


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 50},
        {"state": HoldState.OPEN},
        {"captured": 20},
        {"recipient": "mallory"},
        {"expire_time": NOW + timedelta(days=99)},
    ],
)
def test_a_changed_hold_is_found(tables: Tables, change: dict[str, object]) -> None:
    first = next(iter(tables.holds))
    tables.holds[first] = replace(tables.holds[first], **change)  # type: ignore[arg-type]

    assert tables.problems() == [f"the hold {first} is not what the log says"]


def test_a_supply_that_nobody_minted_is_found(tables: Tables) -> None:
    tables.head = replace(tables.head, supply=1000)

    assert "the supply is 1000, and the log says 99" in tables.problems()


def test_a_hold_that_is_settled_twice_is_found(tables: Tables) -> None:
    captured = tables.entries[3]
    again = sealed(replace(captured, sequence=7, previous_hash=tables.head.hash))
    tables.entries.append(again)
    tables.head = replace(tables.head, sequence=7, hash=again.hash)

    assert tables.problems() == ["entry 7 settles a hold that is not open"]
