"""Scores: how runs stand, now and as they change, and what became of each question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from evalpool.values import InvalidFields, Violation
from evalpool_dataset.rights import Rights
from evalpool_dataset.run import Run
from evalpool_dataset.store import askings, definitions, evaluations, runs
from evalpool_dataset.store.definitions import Definition, Model, Version
from evalpool_dataset.store.evaluations import Result
from evalpool_dataset.store.turns import questions_before
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.watch import Changes

LOOK_AGAIN_SECONDS = 1.0
RUNS_A_READ = 200
RESULTS_A_READ = 200


@dataclass(frozen=True, slots=True)
class RunScore:
    """A run's standing, with what was run on what.

    Attributes:
        run: The run.
        definition: The dataset that it was asked for on.
        version: That dataset's version.
        model: The subject.
        queue_position: Questions of other runs before its first, where it is queued.
    """

    run: Run
    definition: Definition
    version: Version
    model: Model
    queue_position: int


@dataclass(frozen=True, slots=True)
class Standings:
    """Says how runs stand at a moment. Within the caller's transaction.

    Attributes:
        clock: What time it is.
        chunk_questions: Questions of one run that are taken up together, at most.
    """

    clock: Clock
    chunk_questions: int

    def of(self, connection: Connection, run: Run, version: Version) -> RunScore:
        """A run's standing, for who asked for it on a dataset's version."""
        return RunScore(
            run=run,
            definition=definitions.require_definition(connection, version.definition),
            version=version,
            model=definitions.model_by_id(connection, run.model),
            queue_position=questions_before(
                connection, run, self.clock.now(), self.chunk_questions
            ),
        )

    def first_of(self, connection: Connection, run: Run, owner: str | None) -> RunScore:
        """The same on the dataset that it was first asked for on, of an owner's or of all."""
        return self.of(connection, run, askings.first_version(connection, run.id, owner))


class Scores:
    """Tells how runs stand.

    Args:
        standings: Says how they stand at a moment.
        database: The service's database.
        rights: Who may see what.
        changes: Woken after every commit of this process.
        stopping: Set when the service begins to stop.
    """

    def __init__(
        self,
        standings: Standings,
        database: Database,
        rights: Rights,
        changes: Changes,
        stopping: asyncio.Event,
    ) -> None:
        self._standings = standings
        self._database = database
        self._rights = rights
        self._changes = changes
        self._stopping = stopping

    async def get(self, caller: str, run: str) -> RunScore:
        """A run's standing.

        Raises:
            NotFound: There is no such run.
            PermissionDenied: The caller may not see it.
        """

        def work(connection: Connection) -> RunScore:
            found = self._rights.visible_run(connection, caller, run)
            return self._standings.first_of(connection, found, self._rights.owner_filter(caller))

        return await self._database.read(work)

    async def watch(self, caller: str, only: Sequence[str], cursor: int) -> AsyncIterator[RunScore]:
        """Yield runs' standings as they change after a cursor, until the service stops.

        Args:
            caller: Who watches.
            only: The runs; none for all that the caller may see.
            cursor: Grows with every change of any run; 0 begins with the present standings.

        Raises:
            InvalidFields: The service has not come as far as the cursor.
            NotFound: There is no such run.
            PermissionDenied: The caller may not see one of them.
        """

        def check(connection: Connection) -> None:
            present = runs.present_cursor(connection)
            if cursor > present:
                raise InvalidFields([_ahead(cursor, present)])
            for place, run in enumerate(only):
                self._rights.visible_run(connection, caller, run, f"runs[{place}]")

        await self._database.read(check)
        owner = self._rights.owner_filter(caller)
        while not self._stopping.is_set():
            seen = self._changes.version
            found = await self._changed(cursor, only, owner)
            for score in found:
                cursor = score.run.cursor
                yield score
            if not found:
                await self._changes.wait(seen, LOOK_AGAIN_SECONDS)

    async def results(self, caller: str, run: str, after: int) -> AsyncIterator[Result]:
        """Yield what became of a run's questions, in order, for owners that it was asked for by.

        Args:
            caller: Who asks.
            run: The run's id.
            after: Questions after this one; 0 for all.

        Raises:
            NotFound: There is no such run.
            PermissionDenied: It was asked for on no dataset of the caller's.
        """

        def work(connection: Connection, after: int) -> list[Result]:
            own = self._rights.own_run(connection, caller, run)
            return evaluations.list_results(connection, own, after, RESULTS_A_READ)

        while True:
            read = await self._database.read(partial(work, after=after))
            for result in read:
                yield result
            if len(read) < RESULTS_A_READ:
                return
            after = read[-1].question.ordinal

    async def _changed(self, cursor: int, only: Sequence[str], owner: str | None) -> list[RunScore]:
        def work(connection: Connection) -> list[RunScore]:
            found = runs.runs_after(connection, cursor, only, RUNS_A_READ, owner=owner)
            return [self._standings.first_of(connection, run, owner) for run in found]

        return await self._database.read(work)


def _ahead(cursor: int, present: int) -> Violation:
    return Violation(
        "after_cursor",
        f"it is {cursor}, and this service has come to {present}; it is another service, or was "
        "set back: begin anew with 0",
    )
