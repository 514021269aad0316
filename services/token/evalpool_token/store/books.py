"""The whole ledger at once, for the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from evalpool_token import schema
from evalpool_token.audit import audit
from evalpool_token.entries import TRANSFER_KINDS, Entry
from evalpool_token.store import accounts, head, holds, log

MIGRATIONS = "evalpool_token.migrations"
OWN_TABLE = "postings"
"""A table that this service's databases have had from the first, and no other's."""

_ASKED = 1000


@dataclass(frozen=True, slots=True)
class LedgerAudit:
    """What was found.

    Attributes:
        differences: Between the log and the tables, first ones first.
        entries: Entries of the log.
        accounts: Accounts.
        holds: Holds.
        supply: Units in existence.
        transfers: What moved units from or to the account asked for, in order, without postings.
        balance: What that account has, held units among them.
    """

    differences: tuple[str, ...]
    entries: int
    accounts: int
    holds: int
    supply: int
    transfers: tuple[Entry, ...]
    balance: int


def read_audited(connection: Connection, account: str) -> LedgerAudit:
    """Audit the ledger as it is at the transaction's moment, and read what moved on one account.

    Args:
        connection: The transaction.
        account: The account's address; empty for none.
    """
    stored = accounts.everything(connection)
    kept = holds.everything(connection)
    newest = head.read(connection)
    transfers: list[Entry] = []
    entries = log.everything(connection)
    differences = tuple(audit(_watched(entries, account, transfers), stored, kept, newest))
    return LedgerAudit(
        differences=differences,
        entries=newest.sequence,
        accounts=len(stored),
        holds=len(kept),
        supply=newest.supply,
        transfers=tuple(transfers),
        balance=sum(each.balance + each.held for each in stored if each.address == account),
    )


def _watched(entries: Iterable[Entry], account: str, transfers: list[Entry]) -> Iterator[Entry]:
    # The log is read once, and is larger than memory may be: only the account's part is kept.
    for entry in entries:
        # Minted and burned units have a party that is empty: it is no account.
        if account and entry.kind in TRANSFER_KINDS and account in (entry.sender, entry.recipient):
            transfers.append(replace(entry, postings=()))
        yield entry


def recipient_of(connection: Connection, transfers: Sequence[str]) -> str:
    """To whom some transfers went, as most of them say; empty where the ledger has none of them."""
    rows = connection.scalars(
        select(schema.entries.c.recipient).where(
            schema.entries.c.id.in_(transfers[:_ASKED]), schema.entries.c.kind.in_(TRANSFER_KINDS)
        )
    )
    found = Counter(rows).most_common(1)
    return found[0][0] if found else ""
