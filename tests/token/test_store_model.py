"""The stored ledger beside a model: requests, repeats, holds, notices and time in any order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, StaticPool, create_engine, insert

from evalpool_runtime.clock import ManualClock
from evalpool_runtime.errors import AlreadyExists, FailedPrecondition
from evalpool_token import schema, store
from evalpool_token.audit import audit
from evalpool_token.commits import Commits, Receipt
from evalpool_token.entries import GENESIS_HASH, HoldState
from evalpool_token.ledger import Payment

LEDGER = "L" * 43
PEOPLE = ("alice", "bob", "carol")
people = st.sampled_from(PEOPLE)
payments = st.lists(st.builds(Payment, people, st.integers(1, 40)), min_size=1, max_size=3)


@dataclass
class ModelHold:
    holder: str
    recipient: str
    quantity: int
    lapses: float
    state: HoldState = HoldState.OPEN


@dataclass
class Model:
    """What the ledger must be, in a few plain fields."""

    balance: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PEOPLE, 0))
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PEOPLE, 0))
    supply: int = 0
    holds: dict[str, ModelHold] = field(default_factory=dict)
    notices: dict[str, list[int]] = field(default_factory=lambda: {p: [] for p in PEOPLE})

    def move(self, account: str, quantity: int) -> None:
        self.balance[account] += quantity
        self.notices[account].append(self.balance[account])

    def settle(self, hold: ModelHold, state: HoldState) -> None:
        hold.state = state
        self.held[hold.holder] -= hold.quantity
        self.balance[hold.holder] += hold.quantity

    def lapse(self, now: float, holder: str | None = None) -> None:
        for hold in self.holds.values():
            mine = holder is None or hold.holder == holder
            if mine and hold.state is HoldState.OPEN and hold.lapses <= now:
                self.settle(hold, HoldState.EXPIRED)


class StoredLedger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        schema.metadata.create_all(self.engine)
        head = {"id": 1, "sequence": 0, "hash": GENESIS_HASH, "supply": 0, "ledger": LEDGER}
        with self.engine.begin() as connection:
            connection.execute(insert(schema.head), [head])
        self.clock = ManualClock()
        self.commits = Commits(LEDGER, self.clock)
        self.model = Model()
        self.done: dict[tuple[str, str], tuple[list[Payment], Receipt]] = {}
        self.count = 0
        self.cursor = dict.fromkeys(PEOPLE, 0)
        self.read: dict[str, list[int]] = {person: [] for person in PEOPLE}

    def teardown(self) -> None:
        self.engine.dispose()

    def pay(self, sender: str, what: list[Payment], request_id: str) -> Receipt:
        with self.engine.begin() as connection:
            return self.commits.request(
                connection,
                sender,
                request_id,
                repr(what),
                [payment.recipient for payment in what],
                lambda draft: draft.transfer(sender, what, request_id),
            )

    def next_id(self) -> str:
        self.count += 1
        return f"r{self.count}"

    @rule(person=people, quantity=st.integers(1, 100))
    def mint(self, person: str, quantity: int) -> None:
        request_id = self.next_id()
        with self.engine.begin() as connection:
            receipt = self.commits.request(
                connection, "operator", request_id, "", [person],
                lambda draft: draft.mint("operator", person, quantity, request_id),
            )  # fmt: skip
        self.model.supply += quantity
        self.model.move(person, quantity)
        assert receipt.supply == self.model.supply

    @rule(sender=people, what=payments)
    def transfer(self, sender: str, what: list[Payment]) -> None:
        what = [payment for payment in what if payment.recipient != sender]
        if not what:
            return
        request_id = self.next_id()
        with self.refused_above_the_balance(sender, sum(p.quantity for p in what)) as allowed:
            receipt = self.pay(sender, what, request_id)
        if allowed:
            for payment in what:
                self.model.move(sender, -payment.quantity)
                self.model.move(payment.recipient, payment.quantity)
            assert receipt.balance_of(sender) == self.model.balance[sender]
            self.done[sender, request_id] = (what, receipt)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        (sender, request_id), (what, receipt) = data.draw(st.sampled_from(list(self.done.items())))

        again = self.pay(sender, what, request_id)

        assert (again.entries, again.supply) == (receipt.entries, receipt.supply)
        assert again.committed == ()
        with pytest.raises(AlreadyExists):
            self.pay(sender, [*what, *what], request_id)

    @rule(holder=people, recipient=people, quantity=st.integers(1, 40), lasts=st.integers(1, 9))
    def hold(self, holder: str, recipient: str, quantity: int, lasts: int) -> None:
        if holder == recipient:
            return
        request_id = self.next_id()
        span = timedelta(seconds=lasts)
        with (
            self.refused_above_the_balance(holder, quantity) as allowed,
            self.engine.begin() as connection,
        ):
            receipt = self.commits.request(
                connection, holder, request_id, "", [],
                lambda draft: draft.hold(holder, recipient, quantity, span, request_id),
            )  # fmt: skip
        if allowed:
            self.model.balance[holder] -= quantity
            self.model.held[holder] += quantity
            self.model.holds[receipt.entries[0].id] = ModelHold(
                holder, recipient, quantity, self.clock.monotonic() + lasts
            )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), part=st.integers(1, 40))
    def capture(self, data: st.DataObject, part: int) -> None:
        name, hold = data.draw(st.sampled_from(list(self.model.holds.items())))
        open_ = hold.state is HoldState.OPEN and hold.lapses > self.clock.monotonic()
        expectation = (
            contextlib.nullcontext()
            if open_ and part <= hold.quantity
            else pytest.raises(FailedPrecondition)
        )
        with expectation, self.engine.begin() as connection:
            self.commits.capture(connection, name, hold.recipient, part)
        if open_ and part <= hold.quantity:
            self.model.settle(hold, HoldState.CAPTURED)
            self.model.move(hold.holder, -part)
            self.model.move(hold.recipient, part)

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule()
    def sweep(self) -> None:
        with self.engine.begin() as connection:
            self.commits.expire_due(connection)
        self.model.lapse(self.clock.monotonic())

    @rule(person=people, size=st.integers(1, 5))
    def read_notices(self, person: str, size: int) -> None:
        with self.engine.begin() as connection:
            self.take_notices(connection, person, size)

    def take_notices(self, connection: Connection, person: str, size: int) -> None:
        newest = store.head.read(connection).sequence
        for notice in store.log.movements_after(
            connection, person, self.cursor[person], newest, size
        ):
            assert notice.entry.sequence > self.cursor[person]
            self.cursor[person] = notice.entry.sequence
            self.read[person].append(notice.posting.balance)

    @contextlib.contextmanager
    def refused_above_the_balance(self, account: str, quantity: int) -> Iterator[list[bool]]:
        """Gives a list that is empty, and so false, where the block must be refused."""
        self.model_lapsed(account, quantity)
        if quantity > self.model.balance[account]:
            with pytest.raises(FailedPrecondition):
                yield []
        else:
            yield [True]

    def model_lapsed(self, account: str, quantity: int) -> None:
        # A refused request changes nothing, not even what has lapsed.
        now = self.clock.monotonic()
        lapsed = sum(
            hold.quantity
            for hold in self.model.holds.values()
            if hold.holder == account and hold.state is HoldState.OPEN and hold.lapses <= now
        )
        if quantity <= self.model.balance[account] + lapsed:
            self.model.lapse(now, account)

    @invariant()
    def accounts_are_the_models(self) -> None:
        with self.engine.begin() as connection:
            for person in PEOPLE:
                account, _ = store.accounts.read(connection, person)
                assert (account.balance, account.held) == (
                    self.model.balance[person],
                    self.model.held[person],
                )

    @invariant()
    def money_is_conserved_and_the_log_says_so(self) -> None:
        with self.engine.begin() as connection:
            accounts = store.accounts.everything(connection)
            head = store.head.read(connection)
            entries = list(store.log.everything(connection))
            holds = store.holds.everything(connection)
        assert head.supply == self.model.supply == sum(a.balance + a.held for a in accounts)
        assert min((a.balance for a in accounts), default=0) >= 0
        assert [entry.sequence for entry in entries] == list(range(1, head.sequence + 1))
        assert list(audit(entries, accounts, holds, head)) == []

    @invariant()
    def notices_read_in_parts_are_complete_and_in_order(self) -> None:
        for person in PEOPLE:
            expected = self.model.notices[person]
            assert self.read[person] == expected[: len(self.read[person])]
            with self.engine.begin() as connection:
                left = store.log.movements_after(
                    connection, person, self.cursor[person], 10**9, 10**6
                )
            assert len(self.read[person]) + len(left) == len(expected)


StoredLedger.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStoredLedger = StoredLedger.TestCase
