"""Drafts of commits, written whole."""

from __future__ import annotations

from sqlalchemy import Connection

from evalpool_token.ledger import Draft
from evalpool_token.store import accounts, head, holds, log


def write(connection: Connection, draft: Draft) -> None:
    """Write a draft's entries, postings, accounts, holds and head, under the lock on the head."""
    if not draft.entries:
        return
    touched = {posting.account for entry in draft.entries for posting in entry.postings}
    accounts.write(connection, [draft.accounts[address] for address in sorted(touched)])
    log.append(connection, draft.entries)
    for hold in draft.holds:
        holds.write(connection, hold)
    head.move(connection, draft.head)
