"""The ledger's rules, pure: what a commit may do, and what it writes.

A `Draft` begins from the head and the accounts concerned, takes movements one after another, and
ends as entries to append; the store writes them in one transaction while it has the head locked.
After every draft the balances and held units sum to the supply, and none is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evalpool.transfer_ids import transfer_id
from evalpool.values import MAX_QUANTITY, Tag
from evalpool_runtime.errors import FailedPrecondition, PermissionDenied, reasons
from evalpool_token.entries import (
    Account,
    Entry,
    EntryKind,
    Head,
    Hold,
    HoldState,
    Posting,
    movements,
    sealed,
)


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
        now: What time the clock says it is.

    Attributes:
        now: The ledger's time: the clock's, but never before the newest entry's, though clocks of
            replicas differ.
    """

    def __init__(self, ledger: str, head: Head, accounts: Iterable[Account], now: datetime) -> None:
        self._ledger = ledger
        self.head = head
        self.accounts = {account.address: account for account in accounts}
        self.entries: list[Entry] = []
        self.holds: list[Hold] = []
        self.now = now if head.time is None else max(now, head.time)

    def transfer(self, sender: str, payments: Sequence[Payment], request_id: str) -> None:
        """Move units from one sender to each recipient, all or none.

        Raises:
            FailedPrecondition: The balance is below what they take together.
        """
        total = sum(payment.quantity for payment in payments)
        self._require(sender, total, "quantity" if len(payments) == 1 else "transfers")
        for index, payment in enumerate(payments):
            self._append(
                kind=EntryKind.TRANSFER,
                id=transfer_id(self._ledger, sender, request_id, index),
                sender=sender,
                recipient=payment.recipient,
                quantity=payment.quantity,
                tags=payment.tags,
                author=sender,
                request_id=request_id,
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
            kind=EntryKind.MINT,
            id=transfer_id(self._ledger, operator, request_id),
            recipient=recipient,
            quantity=quantity,
            author=operator,
            request_id=request_id,
        )

    def burn(self, sender: str, quantity: int, request_id: str) -> None:
        """Destroy units.

        Raises:
            FailedPrecondition: The balance is below that.
        """
        self._require(sender, quantity, "quantity")
        self.head = replace(self.head, supply=self.head.supply - quantity)
        self._append(
            kind=EntryKind.BURN,
            id=transfer_id(self._ledger, sender, request_id),
            sender=sender,
            quantity=quantity,
            author=sender,
            request_id=request_id,
        )

    def hold(
        self, holder: str, recipient: str, quantity: int, time_to_live: timedelta, request_id: str
    ) -> Hold:
        """Set units aside for a recipient, for some time.

        Raises:
            FailedPrecondition: The balance is below that.
        """
        self._require(holder, quantity, "quantity")
        entry = self._append(
            kind=EntryKind.HOLD,
            id=transfer_id(self._ledger, holder, request_id),
            sender=holder,
            recipient=recipient,
            quantity=quantity,
            author=holder,
            request_id=request_id,
            expire_time=self.now + time_to_live,
        )
        made = made_hold(entry)
        self.holds.append(made)
        return made

    def capture(self, hold: Hold, quantity: int) -> Hold:
        """Give the recipient all or a part of a hold; the rest returns to the holder.

        Raises:
            FailedPrecondition: The hold is settled or has expired, or has less.
        """
        if self.now >= hold.expire_time and hold.state is HoldState.OPEN:
            hold = replace(hold, state=HoldState.EXPIRED)
        _require_open(hold)
        if quantity > hold.quantity:
            raise FailedPrecondition(
                reasons.ERROR_REASON_INSUFFICIENT_BALANCE,
                f"quantity: the hold has {hold.quantity}; capture at most that",
                balance=str(hold.quantity),
                required=str(quantity),
            )
        self._append(
            kind=EntryKind.CAPTURE,
            id=hold.id,
            sender=hold.holder,
            recipient=hold.recipient,
            quantity=quantity,
            author=hold.recipient,
            set_aside=hold.quantity,
        )
        return self._settled(hold, HoldState.CAPTURED, quantity)

    def release(self, hold: Hold, caller: str) -> Hold:
        """Return a hold to its holder.

        Of an expired hold the units return, or have returned, by its expiry.

        Raises:
            PermissionDenied: The caller is the holder, and the hold has not expired.
            FailedPrecondition: The hold has been captured or released.
        """
        if hold.state is HoldState.EXPIRED:
            return hold
        if hold.state is HoldState.OPEN and self.now >= hold.expire_time:
            return self.expire(hold)
        _require_open(hold)
        if caller != hold.recipient:
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                "id: before its expiry only the hold's recipient may release it; ask the "
                "recipient, or wait",
                expire_time=hold.expire_time.isoformat(),
            )
        return self._return(hold, EntryKind.RELEASE, HoldState.RELEASED, caller)

    def expire(self, hold: Hold) -> Hold:
        """Return a hold whose time has passed."""
        return self._return(hold, EntryKind.EXPIRE, HoldState.EXPIRED, "")

    def _return(self, hold: Hold, kind: EntryKind, state: HoldState, author: str) -> Hold:
        _require_open(hold)
        self._append(
            kind=kind,
            id=hold.id,
            sender=hold.holder,
            recipient=hold.recipient,
            quantity=hold.quantity,
            author=author,
        )
        return self._settled(hold, state, 0)

    def _settled(self, hold: Hold, state: HoldState, captured: int) -> Hold:
        settled = replace(hold, state=state, captured=captured)
        self.holds.append(settled)
        return settled

    def _require(self, account: str, quantity: int, field: str) -> None:
        balance = self._account(account).balance
        if quantity > balance:
            raise FailedPrecondition(
                reasons.ERROR_REASON_INSUFFICIENT_BALANCE,
                f"{field}: the balance is {balance}, and {quantity} is required; send less, or "
                "get more units first",
                balance=str(balance),
                required=str(quantity),
            )

    def _account(self, address: str) -> Account:
        return self.accounts.get(address) or Account(address)

    def _append(
        self,
        *,
        kind: EntryKind,
        id: str,
        quantity: int,
        author: str,
        sender: str = "",
        recipient: str = "",
        request_id: str = "",
        tags: tuple[Tag, ...] = (),
        expire_time: datetime | None = None,
        set_aside: int = 0,
    ) -> Entry:
        entry = sealed(
            Entry(
                sequence=self.head.sequence + 1,
                kind=kind,
                id=id,
                sender=sender,
                recipient=recipient,
                quantity=quantity,
                tags=tags,
                commit_time=self.now,
                author=author,
                request_id=request_id,
                expire_time=expire_time,
                previous_hash=self.head.hash,
                hash="",
            )
        )
        postings = []
        for address, amount, held_amount in movements(entry, set_aside):
            before = self._account(address)
            after = replace(before, balance=before.balance + amount, held=before.held + held_amount)
            self.accounts[address] = after
            postings.append(Posting(address, amount, held_amount, after.balance, after.held))
        entry = replace(entry, postings=tuple(postings))
        self.entries.append(entry)
        self.head = replace(
            self.head, sequence=entry.sequence, hash=entry.hash, time=entry.commit_time
        )
        return entry


def made_hold(entry: Entry) -> Hold:
    """The hold that an entry made, as it was at first."""
    if entry.kind is not EntryKind.HOLD or entry.expire_time is None:
        raise ValueError(f"entry {entry.sequence} made no hold")
    return Hold(
        id=entry.id,
        holder=entry.sender,
        recipient=entry.recipient,
        quantity=entry.quantity,
        captured=0,
        state=HoldState.OPEN,
        create_time=entry.commit_time,
        expire_time=entry.expire_time,
    )


def _require_open(hold: Hold) -> None:
    if hold.state is not HoldState.OPEN:
        raise FailedPrecondition(
            reasons.ERROR_REASON_HOLD_SETTLED,
            f"id: the hold is {hold.state.value} already; ask the holder for a new one",
            state=hold.state.name,
            captured=str(hold.captured),
        )
