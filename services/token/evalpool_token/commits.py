"""What the ledger does in one transaction: each function is one commit, or none.

The head is locked first, so that whatever is read after it stands until the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import PermissionDenied, reasons
from evalpool_token import store
from evalpool_token.entries import Entry, Hold
from evalpool_token.ledger import Draft

HOLDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a request made.

    Attributes:
        entries: Its entries, with their postings.
        supply: Units in existence right after it.
        committed: Everything that the commit wrote, lapsed holds too; nothing for a repeat.
    """

    entries: tuple[Entry, ...]
    supply: int
    committed: tuple[Entry, ...]

    def balance_of(self, account: str) -> int:
        """An account's balance right after the request."""
        for entry in reversed(self.entries):
            for posting in entry.postings:
                if posting.account == account:
                    return posting.balance
        raise LookupError(f"no entry touches {account}")


class Commits:
    """The commits of one ledger.

    Args:
        ledger: The ledger's address.
        clock: Its clock.
    """

    def __init__(self, ledger: str, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def request(
        self,
        connection: Connection,
        author: str,
        request_id: str,
        fingerprint: str,
        recipients: Iterable[str],
        make: Callable[[Draft], object],
    ) -> Receipt:
        """Carry out a request with an id, once for ever.

        Args:
            connection: The transaction.
            author: Who asks.
            request_id: The author's id for it.
            fingerprint: The request's content; a repeat must have the same.
            recipients: The other accounts that it touches.
            make: Adds the request's movements to the draft.

        Raises:
            AlreadyExists: The author used the id for something else.
            FailedPrecondition: The ledger's rules do not allow it.
        """
        draft = self._draft(connection, [author, *recipients])
        known = store.requests.find(connection, author, request_id, fingerprint)
        if known is not None:
            return Receipt(known.entries, known.supply, ())
        # What has lapsed is the author's again, whether a sweep has come by or not.
        for hold in store.holds.due(connection, draft.now, HOLDS_AT_ONCE, author):
            draft.expire(hold)
        before = len(draft.entries)
        make(draft)
        made = store.requests.RecordedRequest(tuple(draft.entries[before:]), draft.head.supply)
        store.drafts.write(connection, draft)
        store.requests.record(connection, author, request_id, fingerprint, made)
        return Receipt(made.entries, made.supply, tuple(draft.entries))

    def capture(
        self, connection: Connection, hold_id: str, caller: str, quantity: int
    ) -> tuple[Hold, list[Entry]]:
        """Take all or a part of a hold, once; gives the hold and what was written.

        Raises:
            NotFound: The caller is party to no such hold.
            PermissionDenied: The caller is not its recipient.
            FailedPrecondition: It is settled, has expired, or has less.
        """
        store.head.lock(connection)
        hold = store.holds.require(connection, hold_id, caller)
        if caller != hold.recipient:
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                "id: only the hold's recipient may capture it; ask the recipient",
            )
        draft = self._draft(connection, [hold.holder, hold.recipient])
        captured = draft.capture(hold, quantity)
        store.drafts.write(connection, draft)
        return captured, draft.entries

    def release(
        self, connection: Connection, hold_id: str, caller: str
    ) -> tuple[Hold, list[Entry]]:
        """Return a hold to its holder; gives the hold and what was written.

        Raises:
            NotFound: The caller is party to no such hold.
            PermissionDenied: The caller is the holder, and the hold has not expired.
            FailedPrecondition: It has been captured or released.
        """
        store.head.lock(connection)
        hold = store.holds.require(connection, hold_id, caller)
        draft = self._draft(connection, [hold.holder])
        released = draft.release(hold, caller)
        store.drafts.write(connection, draft)
        return released, draft.entries

    def expire_due(self, connection: Connection, holder: str | None = None) -> int:
        """Return holds whose time has passed: all, or one holder's; gives how many."""
        head = store.head.lock(connection)
        now = Draft(self._ledger, head, (), self._clock.now()).now
        due = store.holds.due(connection, now, HOLDS_AT_ONCE, holder)
        draft = self._draft(connection, {hold.holder for hold in due})
        for hold in due:
            draft.expire(hold)
        store.drafts.write(connection, draft)
        return len(due)

    def has_due(self, connection: Connection, holder: str | None = None) -> bool:
        """Whether there is something for `expire_due` to do."""
        return bool(store.holds.due(connection, self._clock.now(), 1, holder))

    def _draft(self, connection: Connection, addresses: Iterable[str]) -> Draft:
        head = store.head.lock(connection)
        accounts = store.accounts.read_some(connection, sorted(set(addresses)))
        return Draft(self._ledger, head, accounts, self._clock.now())
