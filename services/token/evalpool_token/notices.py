"""Notices: what has moved on an account, read from the log after a cursor, as it is committed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from sqlalchemy import Connection

from evalpool.values import InvalidFields, Violation
from evalpool_runtime.database import Database
from evalpool_runtime.service import Runtime
from evalpool_runtime.watch import Changes
from evalpool_token import store
from evalpool_token.entries import Head
from evalpool_token.settings import TokenSettings
from evalpool_token.store.log import AccountEntry

NOTICES_A_READ = 500
# Other replicas commit too; their notices are seen at the next look.
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One step of a watch.

    Attributes:
        movement: What has moved; None where only the cursor has.
        cursor: Everything up to it has been seen.
    """

    movement: AccountEntry | None
    cursor: int


class Notices:
    """Follows accounts for their owners.

    Args:
        runtime: What the service runs on; its stop ends every watch.
        database: The ledger's database.
        changes: Tells of this process's own commits.
    """

    def __init__(
        self, runtime: Runtime[TokenSettings], database: Database, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._changes = changes

    async def watch(
        self, account: str, after: int, *, until_current: bool
    ) -> AsyncGenerator[Seen, None]:
        """What moves on an account after a sequence number.

        Args:
            account: The account.
            after: The last sequence number seen.
            until_current: End once everything that is there has been seen.

        Raises:
            InvalidFields: The ledger has not come as far as `after`.
            Unavailable: The service stops.
        """
        head, _ = await self._read(account, after)
        if after > head.sequence:
            raise InvalidFields([_ahead(after, head)])
        cursor, woken = after, False
        while not self._runtime.stopping.is_set():
            version = self._changes.version
            head, found = await self._read(account, cursor)
            for movement in found:
                cursor = movement.entry.sequence
                yield Seen(movement, cursor)
            if len(found) == NOTICES_A_READ:
                continue
            # Told at first and whenever nothing happened for a while, not at each commit of others.
            if cursor < head.sequence and not woken:
                cursor = head.sequence
                yield Seen(None, cursor)
            if until_current:
                return
            woken = await self._changes.wait(version, LOOK_AGAIN_SECONDS)
        raise self._runtime.stopping_error()

    async def _read(self, account: str, after: int) -> tuple[Head, list[AccountEntry]]:
        def read(connection: Connection) -> tuple[Head, list[AccountEntry]]:
            # The head first: everything up to it is committed, and nothing after it is sent.
            head = store.head.read(connection)
            return head, store.log.movements_after(
                connection, account, after, head.sequence, NOTICES_A_READ
            )

        return await self._database.read(read)


def _ahead(after: int, head: Head) -> Violation:
    return Violation(
        "after_sequence",
        f"it is {after}, and the ledger is at {head.sequence}; give the last sequence that you "
        "have seen of this ledger",
    )
