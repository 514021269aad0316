"""The ledger's commits on real databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, update

from evalpool.transfer_ids import transfer_id
from evalpool.values import Tag
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied
from evalpool_token import schema, store
from evalpool_token.audit import audit
from evalpool_token.commits import Commits, Receipt
from evalpool_token.entries import Account, EntryKind, HoldState
from evalpool_token.ledger import Payment

LEDGER = "L" * 43
HOUR = timedelta(hours=1)

OpenDatabase = Callable[[str], Awaitable[Database]]


class Book:
    """A ledger in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.commits = Commits(LEDGER, self.clock)

    async def mint(self, recipient: str, quantity: int, request_id: str) -> Receipt:
        return await self.database.write(
            lambda c: self.commits.request(
                c, "operator", request_id, f"mint {recipient} {quantity}", [recipient],
                lambda draft: draft.mint("operator", recipient, quantity, request_id),
            )
        )  # fmt: skip

    async def pay(self, sender: str, payments: Sequence[Payment], request_id: str) -> Receipt:
        return await self.database.write(
            lambda c: self.commits.request(
                c, sender, request_id, repr(payments), [p.recipient for p in payments],
                lambda draft: draft.transfer(sender, payments, request_id),
            )
        )  # fmt: skip

    async def hold(
        self, holder: str, recipient: str, quantity: int, request_id: str, lasts: timedelta = HOUR
    ) -> str:
        receipt = await self.database.write(
            lambda c: self.commits.request(
                c, holder, request_id, f"hold {recipient} {quantity}", [],
                lambda draft: draft.hold(holder, recipient, quantity, lasts, request_id),
            )
        )  # fmt: skip
        return receipt.entries[0].id

    async def account(self, address: str) -> tuple[int, int]:
        found, _ = await self.database.read(lambda c: store.accounts.read(c, address))
        return found.balance, found.held

    async def problems(self) -> list[str]:
        def read(connection: Connection) -> list[str]:
            return list(
                audit(
                    store.log.everything(connection),
                    store.accounts.everything(connection),
                    store.holds.everything(connection),
                    store.head.read(connection),
                )
            )

        return await self.database.read(read)


@pytest.fixture
async def book(database: OpenDatabase) -> Book:
    opened = await database("evalpool_token.migrations")
    await opened.write(lambda c: store.head.claim(c, LEDGER))
    return Book(opened)


async def test_what_was_committed_is_read_back_as_it_was(book: Book) -> None:
    tags = (Tag("X-Zeta", "it's “quoted”"), Tag("X-Alpha", ""), Tag("x-mid", "\\u0000 %s :a"))
    await book.mint("alice", 10**39 - 1, "m")

    made = await book.pay("alice", [Payment("bob", 10**38 + 7, tags)], "t")

    read = await book.database.read(lambda c: store.log.between(c, 1, 99))
    assert tuple(read[1:]) == made.entries
    assert read[1].tags == tags
    assert read[1].id == transfer_id(LEDGER, "alice", "t")
    assert await book.account("bob") == (10**38 + 7, 0)
    assert await book.problems() == []


async def test_a_repeat_gets_the_first_receipt_whatever_came_between(book: Book) -> None:
    first_mint = await book.mint("alice", 100, "m")
    first = await book.pay("alice", [Payment("bob", 60)], "t")
    await book.mint("alice", 5, "m2")
    await book.pay("bob", [Payment("alice", 1)], "t")

    again = await book.pay("alice", [Payment("bob", 60)], "t")
    minted_again = await book.mint("alice", 100, "m")

    assert (again.entries, again.balance_of("alice")) == (first.entries, 40)
    assert (minted_again.entries, minted_again.supply) == (first_mint.entries, 100)
    assert again.committed == minted_again.committed == ()
    assert await book.account("alice") == (46, 0)


async def test_a_repeat_with_other_content_is_refused_and_a_refused_id_is_free(book: Book) -> None:
    await book.mint("alice", 100, "m")
    with pytest.raises(FailedPrecondition):
        await book.pay("alice", [Payment("bob", 101)], "t")
    await book.pay("alice", [Payment("bob", 1)], "t")

    with pytest.raises(AlreadyExists, match="request_id"):
        await book.pay("alice", [Payment("bob", 2)], "t")

    assert await book.account("bob") == (1, 0)


async def test_a_batch_of_ten_thousand_is_one_commit(book: Book) -> None:
    await book.mint("alice", 10_000, "m")
    payments = [Payment(f"person-{n % 3000}", 1, (Tag("X-N", str(n)),)) for n in range(10_000)]

    receipt = await book.pay("alice", payments, "b")
    again = await book.pay("alice", payments, "b")

    assert [e.sequence for e in receipt.entries] == list(range(2, 10_002))
    assert again.entries == receipt.entries
    assert again.balance_of("alice") == 0
    assert await book.account("person-7") == (4, 0)
    assert await book.problems() == []


async def test_racing_senders_share_a_balance_and_nothing_more(book: Book) -> None:
    await book.mint("alice", 100, "m")

    outcomes = await asyncio.gather(
        *(book.pay("alice", [Payment("bob", 7)], f"t{n}") for n in range(30)),
        return_exceptions=True,
    )

    assert sum(isinstance(o, Receipt) for o in outcomes) == 14
    assert all(isinstance(o, Receipt | FailedPrecondition) for o in outcomes)
    assert await book.account("alice") == (2, 0)
    assert await book.problems() == []


async def test_a_request_that_races_with_its_repeat_happens_once(book: Book) -> None:
    await book.mint("alice", 100, "m")

    receipts = await asyncio.gather(
        *(book.pay("alice", [Payment("bob", 7)], "t") for _ in range(10))
    )

    assert len({receipt.entries for receipt in receipts}) == 1
    assert await book.account("bob") == (7, 0)


async def test_readers_of_notices_miss_none_while_others_commit(book: Book) -> None:
    await book.mint("alice", 100, "m")
    seen: list[int] = []

    async def follow() -> None:
        cursor = 0
        while len(seen) < 40:

            def read(c: Connection, after: int = cursor) -> list[store.log.AccountEntry]:
                return store.log.movements_after(c, "bob", after, store.head.read(c).sequence, 3)

            for notice in await book.database.read(read):
                cursor = notice.entry.sequence
                seen.append(notice.entry.quantity)

    payments = (book.pay("alice", [Payment("bob", 1)], f"t{n}") for n in range(40))
    _, *receipts = await asyncio.gather(follow(), *payments)

    assert seen == [1] * 40
    assert sorted(r.entries[0].sequence for r in receipts if r) == list(range(2, 42))


async def test_notices_come_in_order_with_the_balance_after_each(book: Book) -> None:
    await book.mint("alice", 10, "m")
    await book.pay("alice", [Payment("bob", 1), Payment("carol", 2), Payment("bob", 3)], "b")
    await book.database.write(
        lambda c: book.commits.request(c, "bob", "x", "", [], lambda d: d.burn("bob", 4, "x"))
    )
    await book.hold("alice", "carol", 2, "h")

    notices = await book.database.read(lambda c: store.log.movements_after(c, "bob", 0, 99, 99))
    newest = await book.database.read(lambda c: store.log.movements_before(c, "alice", None, 2))

    assert [(n.entry.kind, n.posting.amount, n.posting.balance) for n in notices] == [
        (EntryKind.TRANSFER, 1, 1),
        (EntryKind.TRANSFER, 3, 4),
        (EntryKind.BURN, -4, 0),
    ]
    # A hold moves nothing between owners, so nobody has a notice of it.
    assert [(n.entry.sequence, n.posting.balance) for n in newest] == [(4, 4), (3, 7)]


async def test_a_hold_is_captured_once_in_part_and_the_rest_returns(book: Book) -> None:
    await book.mint("alice", 10, "m")
    hold = await book.hold("alice", "bob", 6, "h")
    assert await book.account("alice") == (4, 6)

    captures = await asyncio.gather(
        *(book.database.write(lambda c: book.commits.capture(c, hold, "bob", 4)) for _ in range(4)),
        return_exceptions=True,
    )

    assert sum(isinstance(capture, tuple) for capture in captures) == 1
    assert {c.reason_name for c in captures if isinstance(c, FailedPrecondition)} == {
        "HOLD_SETTLED"
    }
    assert await book.account("alice") == (6, 0)
    assert await book.account("bob") == (4, 0)
    captured = await book.database.read(lambda c: store.log.require_transfer(c, hold, "bob"))
    assert (captured.kind, captured.quantity) == (EntryKind.CAPTURE, 4)
    assert await book.problems() == []


async def test_only_the_parties_know_a_hold_and_only_the_recipient_takes_it(book: Book) -> None:
    await book.mint("alice", 10, "m")
    hold = await book.hold("alice", "bob", 6, "h")

    with pytest.raises(NotFound):
        await book.database.write(lambda c: book.commits.capture(c, hold, "carol", 1))
    with pytest.raises(PermissionDenied):
        await book.database.write(lambda c: book.commits.capture(c, hold, "alice", 1))
    with pytest.raises(PermissionDenied):
        await book.database.write(lambda c: book.commits.release(c, hold, "alice"))

    assert await book.account("alice") == (4, 6)


async def test_a_lapsed_hold_can_be_spent_before_any_sweep(book: Book) -> None:
    await book.mint("alice", 10, "m")
    hold = await book.hold("alice", "bob", 10, "h", timedelta(minutes=1))
    book.clock.advance(timedelta(minutes=1))

    with pytest.raises(FailedPrecondition, match="expired"):
        await book.database.write(lambda c: book.commits.capture(c, hold, "bob", 1))
    receipt = await book.pay("alice", [Payment("carol", 10)], "t")
    again = await book.pay("alice", [Payment("carol", 10)], "t")

    assert [e.kind for e in receipt.committed] == [EntryKind.EXPIRE, EntryKind.TRANSFER]
    assert [e.kind for e in again.entries] == [EntryKind.TRANSFER]
    assert await book.account("alice") == (0, 0)
    assert await book.problems() == []


async def test_two_sweeps_at_once_return_each_lapsed_hold_once(book: Book) -> None:
    await book.mint("alice", 10, "m")
    lapsing = [await book.hold("alice", "bob", 1, f"h{n}", timedelta(minutes=1)) for n in range(5)]
    await book.hold("alice", "bob", 1, "long", HOUR)
    book.clock.advance(timedelta(minutes=1))

    expired = await asyncio.gather(
        *(book.database.write(book.commits.expire_due) for _ in range(3))
    )

    assert sorted(expired) == [0, 0, 5]
    assert await book.account("alice") == (9, 1)
    states = [
        (await book.database.read(partial(store.holds.require, hold=hold, party="bob"))).state
        for hold in lapsing
    ]
    assert set(states) == {HoldState.EXPIRED}
    assert await book.problems() == []


async def test_a_repeat_races_with_a_sweep_without_harm(book: Book) -> None:
    await book.mint("alice", 10, "m")
    await book.hold("alice", "bob", 10, "h", timedelta(minutes=1))
    book.clock.advance(timedelta(minutes=1))

    await asyncio.gather(
        book.database.write(book.commits.expire_due),
        *(book.pay("alice", [Payment("bob", 10)], "t") for _ in range(3)),
    )

    assert await book.account("alice") == (0, 0)
    assert await book.account("bob") == (10, 0)
    assert await book.problems() == []


async def test_a_database_stays_with_the_key_that_it_was_begun_with(book: Book) -> None:
    await book.database.write(lambda c: store.head.claim(c, LEDGER))

    with pytest.raises(store.head.AnotherLedger, match="key file"):
        await book.database.write(lambda c: store.head.claim(c, "M" * 43))


async def test_the_audit_of_the_tables_finds_a_balance_changed_by_hand(book: Book) -> None:
    await book.mint("alice", 10, "m")
    await book.database.write(
        lambda c: c.execute(
            update(schema.accounts).where(schema.accounts.c.address == "alice").values(balance=11)
        )
    )

    assert (await book.problems())[0] == "alice has (11, 0), and the log says (10, 0)"


async def test_an_unknown_account_is_empty(book: Book) -> None:
    found, sequence = await book.database.read(lambda c: store.accounts.read(c, "nobody"))

    assert (found, sequence) == (Account("nobody"), 0)
