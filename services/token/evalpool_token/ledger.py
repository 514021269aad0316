"""The ledger's rules, pure: what a commit may do, and what it writes.

A `Draft` begins from the head and the accounts concerned, takes movements one after another, and
ends as entries to append; the store writes them in one transaction while it has the head locked.
After every draft the balances and held units sum to the supply, and none is negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from evalpool.transfer_ids import transfer_id
from evalpool.values import MAX_QUANTITY, Tag
from evalpool_runtime.errors import FailedPrecondition, PermissionDenied, reasons
from evalpool_token.entries import Account, Entry, EntryKind, Head, Hold, HoldState, Posting, sealed


@dataclass(frozen=True, slots=True)
class Payment:
    """Units for a recipient, with tags."""

    recipient: str
    quantity: int
    tags: tuple[Tag, ...] = ()


class Draft:
    """One commit on its way.

    Args:
        ledger: The ledger's address.
        head: The ledger's newest point.
        accounts: The accounts that the movements touch; missing ones are empty.
        now: The ledger's time.
    """

    def __init__(self, ledger: str, head: Head, accounts: Iterable[Account], now: datetime) -> None:
        self._ledger = ledger
        self.head = head
        self.accounts = {account.address: account for account in accounts}
        self.entries: list[Entry] = []
        self.holds: list[Hold] = []
        self._now = now

    def transfer(self, sender: str, payments: list[Payment], request_id: str) -> None:
        """Move units from one sender to each recipient, all or none.

        Raises:
            FailedPrecondition: The balance is below what they take together.
        """
        self._require(sender, sum(payment.quantity for payment in payments))
        for index, payment in enumerate(payments):
            self._append(
                EntryKind.TRANSFER,
                transfer_id(self._ledger, sender, request_id, index),
                sender,
                payment.recipient,
                payment.quantity,
                request_id,
                [(sender, -payment.quantity, 0), (payment.recipient, payment.quantity, 0)],
                payment.tags,
            )

    def mint(self, operator: str, recipient: str, quantity: int, request_id: str) -> None:
        """Create units.

        Raises:
            FailedPrecondition: The supply would not fit into 39 digits.
        """
        if self.head.supply + quantity > MAX_QUANTITY:
            raise FailedPrecondition(
                reasons.ERROR_REASON_SUPPLY_LIMIT,
                f"quantity: minting {quantity} would put the supply above {MAX_QUANTITY}; mint "
                f"at most {MAX_QUANTITY - self.head.supply}",
                supply=str(self.head.supply),
            )
        self.head = replace(self.head, supply=self.head.supply + quantity)
        self._append(
            EntryKind.MINT,
            transfer_id(self._ledger, operator, request_id),
            "",
            recipient,
            quantity,
            request_id,
            [(recipient, quantity, 0)],
        )

    def burn(self, sender: str, quantity: int, request_id: str) -> None:
        """Destroy units.

        Raises:
            FailedPrecondition: The balance is below that.
        """
        self._require(sender, quantity)
        self.head = replace(self.head, supply=self.head.supply - quantity)
        self._append(
            EntryKind.BURN,
            transfer_id(self._ledger, sender, request_id),
            sender,
            "",
            quantity,
            request_id,
            [(sender, -quantity, 0)],
        )

    def hold(
        self, holder: str, recipient: str, quantity: int, expire_time: datetime, request_id: str
    ) -> Hold:
        """Set units aside for a recipient.

        Raises:
            FailedPrecondition: The balance is below that.
        """
        self._require(holder, quantity)
        made = Hold(
            id=transfer_id(self._ledger, holder, request_id),
            holder=holder,
            recipient=recipient,
            quantity=quantity,
            captured=0,
            state=HoldState.OPEN,
            create_time=self._now,
            expire_time=expire_time,
        )
        self._append(
            EntryKind.HOLD,
            made.id,
            holder,
            recipient,
            quantity,
            request_id,
            [(holder, -quantity, quantity)],
        )
        self.holds.append(made)
        return made

    def capture(self, hold: Hold, quantity: int) -> Hold:
        """Give the recipient all or a part of a hold; the rest returns to the holder.

        Raises:
            FailedPrecondition: The hold is settled or has expired, or has less.
        """
        self._require_open(hold)
        if quantity > hold.quantity:
            raise FailedPrecondition(
                reasons.ERROR_REASON_INSUFFICIENT_BALANCE,
                f"quantity: the hold has {hold.quantity}; capture at most that",
                balance=str(hold.quantity),
                required=str(quantity),
            )
        self._append(
            EntryKind.CAPTURE,
            hold.id,
            hold.holder,
            hold.recipient,
            quantity,
            "",
            [
                (hold.holder, hold.quantity - quantity, -hold.quantity),
                (hold.recipient, quantity, 0),
            ],
        )
        return self._settled(hold, HoldState.CAPTURED, quantity)

    def release(self, hold: Hold) -> Hold:
        """Return a hold to its holder.

        Raises:
            FailedPrecondition: The hold is settled.
        """
        self._require_unsettled(hold)
        return self._return(hold, EntryKind.RELEASE, HoldState.RELEASED)

    def expire(self, hold: Hold) -> Hold:
        """Return a hold whose time has passed."""
        self._require_unsettled(hold)
        return self._return(hold, EntryKind.EXPIRE, HoldState.EXPIRED)

    def _return(self, hold: Hold, kind: EntryKind, state: HoldState) -> Hold:
        self._append(
            kind,
            hold.id,
            hold.holder,
            hold.recipient,
            hold.quantity,
            "",
            [(hold.holder, hold.quantity, -hold.quantity)],
        )
        return self._settled(hold, state, 0)

    def _settled(self, hold: Hold, state: HoldState, captured: int) -> Hold:
        settled = replace(hold, state=state, captured=captured)
        self.holds.append(settled)
        return settled

    def _require(self, account: str, quantity: int) -> None:
        balance = self._account(account).balance
        if quantity > balance:
            raise FailedPrecondition(
                reasons.ERROR_REASON_INSUFFICIENT_BALANCE,
                f"quantity: the balance is {balance}, and {quantity} is required; send less, or "
                "get more units first",
                balance=str(balance),
                required=str(quantity),
            )

    def _require_open(self, hold: Hold) -> None:
        self._require_unsettled(hold)
        if self._now >= hold.expire_time:
            raise FailedPrecondition(
                reasons.ERROR_REASON_HOLD_SETTLED,
                "id: the hold has expired; ask the holder for a new one",
                state=HoldState.EXPIRED.value,
            )

    @staticmethod
    def _require_unsettled(hold: Hold) -> None:
        if hold.state is not HoldState.OPEN:
            raise FailedPrecondition(
                reasons.ERROR_REASON_HOLD_SETTLED,
                f"id: the hold is {hold.state.value} already; nothing is left of it",
                state=hold.state.value,
            )

    def _account(self, address: str) -> Account:
        return self.accounts.get(address) or Account(address)

    def _append(
        self,
        kind: EntryKind,
        entry_id: str,
        sender: str,
        recipient: str,
        quantity: int,
        request_id: str,
        changes: list[tuple[str, int, int]],
        tags: tuple[Tag, ...] = (),
    ) -> None:
        postings = []
        for address, amount, held_amount in changes:
            before = self._account(address)
            after = replace(before, balance=before.balance + amount, held=before.held + held_amount)
            self.accounts[address] = after
            postings.append(Posting(address, amount, held_amount, after.balance, after.held))
        entry = sealed(
            Entry(
                sequence=self.head.sequence + 1,
                kind=kind,
                id=entry_id,
                sender=sender,
                recipient=recipient,
                quantity=quantity,
                tags=tags,
                commit_time=self._now,
                request_id=request_id,
                previous_hash=self.head.hash,
                hash="",
                postings=tuple(postings),
            )
        )
        self.entries.append(entry)
        self.head = replace(self.head, sequence=entry.sequence, hash=entry.hash)


def may_release(hold: Hold, caller: str, now: datetime) -> None:
    """Check that a caller may release a hold: its recipient; after its expiry the holder too.

    Raises:
        PermissionDenied: Neither.
    """
    if caller == hold.recipient or (caller == hold.holder and now >= hold.expire_time):
        return
    raise PermissionDenied(
        reasons.ERROR_REASON_NOT_ALLOWED,
        "id: before its expiry only the hold's recipient may release it; ask the recipient, or "
        "wait",
    )
