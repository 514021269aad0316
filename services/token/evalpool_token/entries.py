"""The ledger's values: accounts, entries, postings, holds; and the hash chain over entries.

Units are Python ints. An entry is one movement; its postings say what it does to each account, so
that every balance can be computed again from the log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from evalpool.values import Tag

GENESIS_HASH = "0" * 64
"""What stands before the first entry."""


class EntryKind(StrEnum):
    """What a movement is."""

    TRANSFER = "transfer"
    MINT = "mint"
    BURN = "burn"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    EXPIRE = "expire"


TRANSFER_KINDS = (EntryKind.TRANSFER, EntryKind.MINT, EntryKind.BURN, EntryKind.CAPTURE)
"""The kinds of entries that move units between owners, and so make notices."""


class HoldState(StrEnum):
    """What became of a hold."""

    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Account:
    """An account's standing.

    Attributes:
        address: Whose it is.
        balance: Units that can be spent.
        held: Units set aside by open holds.
    """

    address: str
    balance: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The newest point of the ledger.

    Attributes:
        sequence: The newest entry's number; 0 before the first.
        hash: Its hash.
        supply: Units in existence.
        time: When it was committed; None before the first.
    """

    sequence: int = 0
    hash: str = GENESIS_HASH
    supply: int = 0
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Units set aside for a named recipient."""

    id: str
    holder: str
    recipient: str
    quantity: int
    captured: int
    state: HoldState
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Posting:
    """What an entry does to one account.

    Attributes:
        account: Whose account.
        amount: What the balance changes by.
        held_amount: What the held units change by.
        balance: The balance right after.
        held: The held units right after.
    """

    account: str
    amount: int
    held_amount: int
    balance: int
    held: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement, as the log keeps it.

    Attributes:
        sequence: Its number, from 1, without gaps.
        kind: What it is.
        id: The transfer's id; of the movements of a hold, the hold's.
        sender: Whose units move; empty for minted ones.
        recipient: To whom; empty for burned ones.
        quantity: Units.
        tags: As sent.
        commit_time: By the ledger's clock.
        author: Who asked for it; empty where the ledger itself did, as with an expiry.
        request_id: The author's; empty where none was given.
        expire_time: When a hold lapses; None of other kinds.
        previous_hash: The hash of the entry before.
        hash: Covers everything above and all entries before.
        postings: What it does to accounts. They follow from the entry (`movements`), so the hash
            need not cover them.
    """

    sequence: int
    kind: EntryKind
    id: str
    sender: str
    recipient: str
    quantity: int
    tags: tuple[Tag, ...]
    commit_time: datetime
    author: str
    request_id: str
    expire_time: datetime | None
    previous_hash: str
    hash: str
    postings: tuple[Posting, ...] = ()


def movements(entry: Entry, set_aside: int = 0) -> tuple[tuple[str, int, int], ...]:
    """What an entry does to accounts: each account with the changes of its balance and held units.

    Args:
        entry: The entry; its postings are not looked at.
        set_aside: Of a capture: what the hold had set aside. The rest of it returns.
    """
    quantity = entry.quantity
    match entry.kind:
        case EntryKind.TRANSFER:
            return ((entry.sender, -quantity, 0), (entry.recipient, quantity, 0))
        case EntryKind.MINT:
            return ((entry.recipient, quantity, 0),)
        case EntryKind.BURN:
            return ((entry.sender, -quantity, 0),)
        case EntryKind.HOLD:
            return ((entry.sender, -quantity, quantity),)
        case EntryKind.CAPTURE:
            return (
                (entry.sender, set_aside - quantity, -set_aside),
                (entry.recipient, quantity, 0),
            )
        case EntryKind.RELEASE | EntryKind.EXPIRE:
            return ((entry.sender, quantity, -quantity),)


def sealed(entry: Entry) -> Entry:
    """The entry with its hash."""
    return replace(entry, hash=entry_hash(entry))


def entry_hash(entry: Entry) -> str:
    """Hexadecimal SHA-256 over the previous hash and the entry's canonical JSON.

    Canonical: members sorted by name, no spaces, UTF-8, as RFC 8785 has it for texts and integers.
    """
    content = {
        "author": entry.author,
        "commit_time": _moment(entry.commit_time),
        "expire_time": None if entry.expire_time is None else _moment(entry.expire_time),
        "id": entry.id,
        "kind": entry.kind.value,
        "quantity": str(entry.quantity),
        "recipient": entry.recipient,
        "request_id": entry.request_id,
        "sender": entry.sender,
        "sequence": entry.sequence,
        "tags": [[tag.name, tag.value] for tag in entry.tags],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(bytes.fromhex(entry.previous_hash) + text.encode()).hexdigest()


class ChainWalk:
    """Walks the hash chain, entry by entry."""

    def __init__(self) -> None:
        self._sequence = 0
        self._hash = GENESIS_HASH

    def step(self, entry: Entry) -> Iterator[str]:
        """Go on to an entry and yield what is wrong with it."""
        if entry.sequence != self._sequence + 1:
            yield f"entry {entry.sequence} comes after entry {self._sequence}"
        if entry.previous_hash != self._hash:
            yield f"entry {entry.sequence} does not follow from the entry before it"
        if not _is_sealed(entry):
            yield f"entry {entry.sequence} is not what its hash says"
        self._sequence, self._hash = entry.sequence, entry.hash

    def end(self, head: Head) -> Iterator[str]:
        """Yield what is wrong with where the chain ends."""
        if head.sequence != self._sequence:
            yield f"the head is at {head.sequence}, and the log ends at {self._sequence}"
        elif head.hash != self._hash:
            yield f"the head's hash is not that of entry {self._sequence}"


def chain_problems(entries: Iterable[Entry], head: Head | None = None) -> Iterator[str]:
    """Walk the hash chain and yield each break, first ones first.

    Args:
        entries: All entries, in order.
        head: Where the chain must end, if known.
    """
    walk = ChainWalk()
    for entry in entries:
        yield from walk.step(entry)
    if head is not None:
        yield from walk.end(head)


def _is_sealed(entry: Entry) -> bool:
    try:
        return entry.hash == entry_hash(entry)
    except ValueError:
        return False  # the hash before it is no hash


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
