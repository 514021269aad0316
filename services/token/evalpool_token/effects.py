"""Calls with an effect: each is one transaction, once, counted and told to those who watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from evalpool_runtime.database import Database
from evalpool_runtime.replay import once
from evalpool_runtime.watch import Changes
from evalpool_token.commits import Commits, Receipt
from evalpool_token.entries import Entry, EntryKind
from evalpool_token.metrics import TokenMetrics

M = TypeVar("M", bound=Message)


class Effects:
    """Has the ledger's commits made.

    Args:
        database: The ledger's database.
        commits: What a transaction does.
        changes: Wakes watches after a commit.
        metrics: Counts what was committed.
    """

    def __init__(
        self, database: Database, commits: Commits, changes: Changes, metrics: TokenMetrics
    ) -> None:
        self._database = database
        self._commits = commits
        self._changes = changes
        self._metrics = metrics

    async def request(
        self,
        response_type: type[M],
        commit: Callable[[Connection], Receipt],
        pack: Callable[[Receipt], M],
    ) -> M:
        """Carry out a request with an id.

        Args:
            response_type: The method's response message.
            commit: What it does, in the transaction.
            pack: Makes the response of what it did.

        Raises:
            DomainError: It cannot be carried out; nothing has changed.
        """

        def work(connection: Connection) -> tuple[M, Sequence[Entry]]:
            receipt = commit(connection)
            return pack(receipt), receipt.committed

        return await self.once(response_type, work)

    async def once(
        self,
        response_type: type[M],
        work: Callable[[Connection], tuple[M, Sequence[Entry]]],
    ) -> M:
        """Do the current call's work, unless it has been done under the same token.

        Args:
            response_type: The method's response message.
            work: Gets the transaction; gives the response and the entries that it wrote.

        Raises:
            DomainError: It cannot be done; nothing has changed.
        """
        written: list[EntryKind] = []

        def transact(connection: Connection) -> M:
            response, entries = work(connection)
            # The database may run it again: only the last run counts.
            written[:] = [entry.kind for entry in entries]
            return response

        response = await once(self._database, response_type, transact)
        if written:
            self._metrics.committed(written)
            self._changes.notify()
        return response

    async def expire_due(self, holder: str | None = None) -> None:
        """Give back what has lapsed, of everybody or of one holder."""
        # Looked for first, so that an idle ledger is not locked; a commit takes a part of many.
        while await self._database.read(lambda c: self._commits.has_due(c, holder)):
            expired = await self._database.write(lambda c: self._commits.expire_due(c, holder))
            self._metrics.committed([EntryKind.EXPIRE] * expired)
