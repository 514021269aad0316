"""Loading: a file of questions becomes a version of its dataset, or nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from evalpool.values import Violation
from evalpool_dataset.datasets import Described
from evalpool_dataset.installed import parameters_of, require_kind
from evalpool_dataset.loaders import Format, Limits, LoadedQuestions, LoadProblems, QuestionLoader
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.parts import Kind, Loader
from evalpool_dataset.rights import Rights
from evalpool_dataset.store import definitions, runs
from evalpool_dataset.store.definitions import NewVersion
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import FailedPrecondition, InvalidRequest, reasons

_FIELD = "options.dataset"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of questions that is about to come.

    Attributes:
        dataset: The dataset's id.
        format: The file's form.
        source: Where it came from, for people.
        sha256: The file's digest.
        labels: The labels' file, where they lie in one of their own.
    """

    dataset: str
    format: Format
    source: str
    sha256: str
    labels: bytes | None


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that was read whole, and none of whose rows is bad.

    Attributes:
        dataset: The dataset's id.
        version: The version that it makes.
    """

    dataset: str
    version: NewVersion


class Loading:
    """Loads files of questions.

    Args:
        database: The service's database.
        kinds: The kinds of dataset, by name.
        rights: Who may.
        clock: What time it is.
        metrics: Counts what is loaded.
        max_file_bytes: Bytes of a file at most.
    """

    def __init__(
        self,
        database: Database,
        kinds: Mapping[str, Kind],
        rights: Rights,
        clock: Clock,
        metrics: DatasetMetrics,
        max_file_bytes: int,
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._rights = rights
        self._clock = clock
        self._metrics = metrics
        self._limits = Limits(file_bytes=max_file_bytes)

    async def read(self, caller: str, new: NewFile, chunks: AsyncIterator[bytes]) -> ReadFile:
        """Read a file for the caller's own dataset; nothing is kept yet.

        Raises:
            NotFound: There is no such dataset.
            PermissionDenied: It is somebody else's.
            InvalidRequest: Rows are bad, with line and field.
            FailedPrecondition: The file was cut off, or changed, on its way.
        """
        definition = await self._database.read(
            lambda c: self._rights.own_definition(c, caller, new.dataset, _FIELD)
        )
        kind = require_kind(self._kinds, definition, _FIELD)
        parameters = parameters_of(definition)
        parts = kind.parts(parameters)
        loaded = await self._read(new, parts.loader, chunks)
        digest = await asyncio.to_thread(kind.version, parameters, loaded.questions)
        self._metrics.loaded(len(loaded.questions))
        return ReadFile(
            definition.id,
            NewVersion(digest, parts.specs(), loaded.questions, new.source, new.sha256),
        )

    def keep(self, connection: Connection, read: ReadFile) -> tuple[Described, bool]:
        """Keep a file's questions as the newest version of their dataset.

        Returns:
            The dataset at its newest version, and whether that is another one than before.
        """
        now = self._clock.now()
        runs.wait_for_turn(connection)
        present = definitions.require_definition(connection, read.dataset, _FIELD)
        version = definitions.add_version(connection, present, read.version, now)
        if version.id == present.newest_version:
            return Described(present, version), False
        present = replace(present, newest_version=version.id, update_time=now)
        return Described(present, version), True

    async def _read(
        self, new: NewFile, form: Loader, chunks: AsyncIterator[bytes]
    ) -> LoadedQuestions:
        with QuestionLoader(new.format, form, labels=new.labels, limits=self._limits) as loader:
            async for chunk in chunks:
                await asyncio.to_thread(loader.feed, chunk)
                if loader.stopped:
                    break
            loaded = await asyncio.to_thread(loader.finish)
        if isinstance(loaded, LoadProblems):
            field = "options.labels" if loaded.told[0].file == "labels" else "chunk"
            raise InvalidRequest(
                [Violation(problem.path, problem.message) for problem in loaded.told],
                reason=reasons.ERROR_REASON_INVALID_ROWS,
                message=f"{field}: {loaded.summary}",
                problems=str(loaded.count),
            )
        if new.sha256 != loaded.sha256:
            raise FailedPrecondition(
                reasons.ERROR_REASON_DIGEST_MISMATCH,
                f"options.sha256: the file that came has {loaded.sha256}; send it again",
            )
        return loaded
