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
    """

    sequence: int = 0
    hash: str = GENESIS_HASH
    supply: int = 0


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
        request_id: The sender's.
        previous_hash: The hash of the entry before.
        hash: Covers everything above and all entries before.
        postings: What it does to accounts; verified by the audit, not part of the hash.
    """

    sequence: int
    kind: EntryKind
    id: str
    sender: str
    recipient: str
    quantity: int
    tags: tuple[Tag, ...]
    commit_time: datetime
    request_id: str
    previous_hash: str
    hash: str
    postings: tuple[Posting, ...] = ()


def sealed(entry: Entry) -> Entry:
    """The entry with its hash."""
    return replace(entry, hash=entry_hash(entry))


def entry_hash(entry: Entry) -> str:
    """Hexadecimal SHA-256 over the previous hash and the entry's canonical JSON (RFC 8785)."""
    content = {
        "commit_time": entry.commit_time.astimezone(UTC).isoformat(timespec="microseconds"),
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


def chain_problems(entries: Iterable[Entry], head: Head | None = None) -> Iterator[str]:
    """Walk the hash chain and yield each break, first ones first.

    Args:
        entries: All entries, in order.
        head: Where the chain must end, if known.
    """
    sequence, previous = 0, GENESIS_HASH
    for entry in entries:
        if entry.sequence != sequence + 1:
            yield f"entry {entry.sequence} comes after entry {sequence}"
        if entry.previous_hash != previous:
            yield f"entry {entry.sequence} does not follow from the entry before it"
        if entry.hash != entry_hash(entry):
            yield f"entry {entry.sequence} is not what its hash says"
        sequence, previous = entry.sequence, entry.hash
    if head is not None and (head.sequence, head.hash) != (sequence, previous):
        yield f"the head is at {head.sequence}, and the log ends at {sequence}"
