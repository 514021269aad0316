"""The sweep over open evaluations: hourly for safety, and at once when somebody asks for it."""

from __future__ import annotations

from evalpool_dataset.rights import Rights
from evalpool_dataset.runner import Runner
from evalpool_dataset.store import evaluations
from evalpool_runtime.database import Database

EVALUATIONS_A_SWEEP = 1000


class Sweep:
    """Has open evaluations taken up now, whatever pause or lost lease keeps them.

    The drain takes up everything by itself; what a sweep adds is that nothing depends on one timer
    having been right. It may run late, twice, or on two replicas.

    Args:
        database: The service's database.
        rights: Whose evaluations a caller may have taken up.
        runner: Evaluates them.
    """

    def __init__(self, database: Database, rights: Rights, runner: Runner) -> None:
        self._database = database
        self._rights = rights
        self._runner = runner

    async def run(self) -> int:
        """Take up to 1,000 open evaluations, of the oldest runs first.

        Returns:
            How many are now queued or under way.
        """
        return await self._take_up(None, "", EVALUATIONS_A_SWEEP)

    async def run_for(self, caller: str, run: str, limit: int) -> int:
        """The same for a caller.

        Args:
            caller: Who asks; of others' datasets nothing is taken up.
            run: Only this run; empty for all.
            limit: Evaluations at most.

        Returns:
            How many are now queued or under way.

        Raises:
            NotFound: There is no such run.
            PermissionDenied: The caller may not touch it.
        """
        if run:
            await self._database.read(lambda c: self._rights.visible_run(c, caller, run))
        return await self._take_up(self._rights.owner_filter(caller), run, limit)

    async def _take_up(self, owner: str | None, run: str, limit: int) -> int:
        await self._runner.expire()

        taken = await self._database.write(
            lambda c: evaluations.take_up(c, limit, run=run, owner=owner)
        )
        self._runner.wake()
        return taken
