"""The ledger's rules against a small model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from evalpool.values import MAX_QUANTITY, Tag
from evalpool_runtime.errors import FailedPrecondition, PermissionDenied
from evalpool_token.audit import audit
from evalpool_token.entries import (
    Account,
    Entry,
    EntryKind,
    Head,
    Hold,
    HoldState,
    chain_problems,
)
from evalpool_token.ledger import Draft, Payment

LEDGER = "L" * 43
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = ("alice", "bob", "carol")

people = st.sampled_from(PEOPLE)
quantities = st.integers(min_value=1, max_value=10**39)


class LedgerMachine(RuleBasedStateMachine):
    """Drafts committed one after another, beside balances kept in a dict."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.accounts: dict[str, Account] = {}
        self.log: list[Entry] = []
        self.model = dict.fromkeys(PEOPLE, 0)
        self.model_held = dict.fromkeys(PEOPLE, 0)
        self.current: dict[str, Hold] = {}
        self.count = 0

    def draft(self) -> Draft:
        self.count += 1
        now = NOW + timedelta(seconds=self.count)
        return Draft(LEDGER, self.head, self.accounts.values(), now)

    def commit(self, draft: Draft) -> None:
        self.head = draft.head
        self.accounts = dict(draft.accounts)
        self.log += draft.entries
        for hold in draft.holds:
            self.current[hold.id] = hold

    @rule(person=people, quantity=quantities)
    def mint(self, person: str, quantity: int) -> None:
        draft = self.draft()
        if self.head.supply + quantity > MAX_QUANTITY:
            with pytest.raises(FailedPrecondition):
                draft.mint("operator", person, quantity, f"m{self.count}")
            return
        draft.mint("operator", person, quantity, f"m{self.count}")
        self.commit(draft)
        self.model[person] += quantity

    @rule(person=people, share=st.fractions(min_value=0, max_value=2))
    def burn(self, person: str, share: Fraction) -> None:
        quantity = max(1, int(self.model[person] * share))
        draft = self.draft()
        if quantity > self.model[person]:
            with pytest.raises(FailedPrecondition):
                draft.burn(person, quantity, f"b{self.count}")
            return
        draft.burn(person, quantity, f"b{self.count}")
        self.commit(draft)
        self.model[person] -= quantity

    @rule(sender=people, data=st.data())
    def transfer(self, sender: str, data: st.DataObject) -> None:
        others = [person for person in PEOPLE if person != sender]
        payments = data.draw(
            st.lists(
                st.builds(
                    Payment,
                    st.sampled_from(others),
                    st.integers(1, max(1, self.model[sender] + 1)),
                ),
                min_size=1,
                max_size=4,
            )
        )
        draft = self.draft()
        total = sum(payment.quantity for payment in payments)
        if total > self.model[sender]:
            with pytest.raises(FailedPrecondition):
                draft.transfer(sender, payments, f"t{self.count}")
            assert draft.entries == []
            return
        draft.transfer(sender, payments, f"t{self.count}")
        self.commit(draft)
        for payment in payments:
            self.model[sender] -= payment.quantity
            self.model[payment.recipient] += payment.quantity

    @rule(target=holds, holder=people, data=st.data())
    def hold(self, holder: str, data: st.DataObject) -> str:
        recipient = data.draw(st.sampled_from([p for p in PEOPLE if p != holder]))
        quantity = data.draw(st.integers(1, max(1, self.model[holder])))
        draft = self.draft()
        if quantity > self.model[holder]:
            with pytest.raises(FailedPrecondition):
                draft.hold(holder, recipient, quantity, timedelta(days=1), f"h{self.count}")
            return ""
        made = draft.hold(holder, recipient, quantity, timedelta(days=1), f"h{self.count}")
        self.commit(draft)
        self.model[holder] -= quantity
        self.model_held[holder] += quantity
        return made.id

    @rule(hold=holds, share=st.fractions(min_value=0, max_value=1))
    def capture(self, hold: str, share: Fraction) -> None:
        if not hold:
            return
        present = self.current[hold]
        quantity = max(1, int(present.quantity * share))
        draft = self.draft()
        if present.state is not HoldState.OPEN:
            with pytest.raises(FailedPrecondition):
                draft.capture(present, quantity)
            return
        draft.capture(present, quantity)
        self.commit(draft)
        self.model_held[present.holder] -= present.quantity
        self.model[present.holder] += present.quantity - quantity
        self.model[present.recipient] += quantity

    @rule(hold=holds, expire=st.booleans())
    def release_or_expire(self, hold: str, expire: bool) -> None:
        if not hold:
            return
        present = self.current[hold]
        draft = self.draft()

        def act() -> Hold:
            return draft.expire(present) if expire else draft.release(present, present.recipient)

        if not expire and present.state is HoldState.EXPIRED:
            assert act() == present
            assert draft.entries == []
            return
        if present.state is not HoldState.OPEN:
            with pytest.raises(FailedPrecondition):
                act()
            return
        act()
        self.commit(draft)
        self.model_held[present.holder] -= present.quantity
        self.model[present.holder] += present.quantity

    @invariant()
    def balances_are_the_models(self) -> None:
        for person in PEOPLE:
            account = self.accounts.get(person, Account(person))
            assert account.balance == self.model[person]
            assert account.held == self.model_held[person]

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert list(audit(self.log, self.accounts.values(), self.current.values(), self.head)) == []

    @invariant()
    def sequences_are_gapless_and_ids_of_transfers_unique(self) -> None:
        assert [entry.sequence for entry in self.log] == list(range(1, len(self.log) + 1))
        ids = [e.id for e in self.log if e.kind is EntryKind.TRANSFER]
        assert len(ids) == len(set(ids))


TestLedger = LedgerMachine.TestCase


def log_of_three() -> tuple[list[Entry], list[Account], Head]:
    draft = Draft(LEDGER, Head(), [], NOW)
    draft.mint("operator", "alice", 100, "m1")
    draft.transfer("alice", [Payment("bob", 30, (Tag("X-Note", "hi"),)), Payment("carol", 5)], "t1")
    return draft.entries, list(draft.accounts.values()), draft.head


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 31},
        {"recipient": "carol"},
        {"tags": ()},
        {"commit_time": NOW + timedelta(seconds=1)},
        {"request_id": "other"},
        {"author": "carol"},
        {"expire_time": NOW},
    ],
)
def test_a_changed_entry_breaks_the_chain(change: dict[str, object]) -> None:
    log, _, head = log_of_three()
    log[1] = replace(log[1], **change)  # type: ignore[arg-type]

    assert next(chain_problems(log, head)) == "entry 2 is not what its hash says"


def test_a_removed_entry_breaks_the_chain() -> None:
    log, _, head = log_of_three()

    assert next(chain_problems(log[:1] + log[2:], head)) == "entry 3 comes after entry 1"
    assert list(chain_problems(log[:2], head)) == ["the head is at 3, and the log ends at 2"]


def test_an_expired_hold_cannot_be_captured() -> None:
    draft = Draft(LEDGER, Head(), [], NOW)
    draft.mint("operator", "alice", 100, "m1")
    hold = draft.hold("alice", "bob", 10, timedelta(0), "h1")

    with pytest.raises(FailedPrecondition, match="expired"):
        draft.capture(hold, 1)


def test_the_ledgers_time_never_goes_back() -> None:
    draft = Draft(LEDGER, Head(), [], NOW)
    draft.mint("operator", "alice", 1, "m1")

    later = Draft(LEDGER, draft.head, draft.accounts.values(), NOW - timedelta(hours=1))
    later.burn("alice", 1, "b1")

    assert later.entries[0].commit_time == NOW


def held(time_to_live: timedelta) -> tuple[Draft, Hold]:
    draft = Draft(LEDGER, Head(), [], NOW)
    draft.mint("operator", "alice", 100, "m1")
    return draft, draft.hold("alice", "bob", 10, time_to_live, "h1")


def test_before_its_expiry_only_the_recipient_may_release_a_hold() -> None:
    draft, hold = held(timedelta(hours=1))

    with pytest.raises(PermissionDenied, match="recipient"):
        draft.release(hold, "alice")

    assert draft.release(hold, "bob").state is HoldState.RELEASED
    assert draft.accounts["alice"] == Account("alice", 100, 0)


def test_after_its_expiry_a_released_hold_has_expired_for_the_holder_too() -> None:
    draft, hold = held(timedelta(0))

    expired = draft.release(hold, "alice")

    assert expired.state is HoldState.EXPIRED
    assert draft.accounts["alice"] == Account("alice", 100, 0)
    assert draft.release(expired, "alice") == expired
    assert draft.accounts["alice"] == Account("alice", 100, 0)


def test_more_than_a_hold_has_cannot_be_captured() -> None:
    draft, hold = held(timedelta(hours=1))

    with pytest.raises(FailedPrecondition, match="quantity: the hold has 10"):
        draft.capture(hold, 11)


def test_the_supply_may_have_39_digits_and_no_more() -> None:
    draft = Draft(LEDGER, Head(), [], NOW)
    draft.mint("operator", "alice", MAX_QUANTITY - 1, "m1")
    draft.mint("operator", "bob", 1, "m2")

    with pytest.raises(FailedPrecondition, match="mint at most 0") as refused:
        draft.mint("operator", "alice", 1, "m3")

    assert refused.value.reason_name == "SUPPLY_LIMIT"
    assert draft.head.supply == MAX_QUANTITY
