"""What became of a transfer to this service, as far as it is known."""

from __future__ import annotations

from functools import partial

from evalpool_benchmark.ledger import Ledger
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.store import fundings
from evalpool_benchmark.store.fundings import Funding
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, Unavailable, reasons


class Credits:
    """The transfers to this service.

    Args:
        database: Where decisions are kept.
        ledger: The token service, which knows of transfers before they are decided.
    """

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def decision(self, transfer: str, *, by_operator: bool) -> Funding | None:
        """What was decided on a transfer; None where that is still to come.

        Args:
            transfer: The transfer's id.
            by_operator: Whether the operator asks. To others, units that were minted to this
                service are no transfer: nobody paid them.

        Raises:
            NotFound: No such transfer was made to this service.
            Unavailable: The token service cannot be asked.
        """
        read = partial(fundings.get, transfer=transfer)
        funding = await self._database.read(read)
        if funding is not None:
            if not funding.payer and not by_operator:
                raise _no_such(transfer)
            return funding
        try:
            credit = await self._ledger.credit(transfer)
        except (PeerUnavailable, PeerRefused) as error:
            raise Unavailable(
                reasons.ERROR_REASON_UNAVAILABLE,
                "the token service cannot be reached now; ask again",
                retry_after=1.0,
            ) from error
        if credit is None or (not credit.payer and not by_operator):
            raise _no_such(transfer)
        # It may have been decided in the meantime.
        return await self._database.read(read)


def _no_such(transfer: str) -> NotFound:
    return NotFound(
        reasons.ERROR_REASON_FUNDING_NOT_FOUND,
        f'transfer: there is none to this service with the id "{transfer}"; Transfer '
        "answers with the id",
        transfer=transfer,
    )
