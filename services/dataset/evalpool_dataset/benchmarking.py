"""Benchmarking: a subject's run on a version is started, found again, or retried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from evalpool_dataset.datasets import require_version
from evalpool_dataset.installed import (
    NotUsable,
    evaluator_parameters,
    parameters_of,
    require_kind,
    usable_parts,
)
from evalpool_dataset.models import Models
from evalpool_dataset.parts import Evaluator, Kind
from evalpool_dataset.request_key import RequestKey
from evalpool_dataset.rights import Rights
from evalpool_dataset.run import RETRIED, Run, reopened, run_id
from evalpool_dataset.runner import Runner
from evalpool_dataset.scores import RunScore, Standings
from evalpool_dataset.store import askings, definitions, evaluations, named_requests, runs
from evalpool_dataset.store.definitions import Definition, Model, Version
from evalpool_dataset.store.named_requests import StartedRun
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import FailedPrecondition, PermissionDenied, Unavailable, reasons
from evalpool_runtime.watch import Changes


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that somebody asks for.

    Attributes:
        dataset: The dataset's id.
        version: The version's digest; empty for the newest.
        subject: The model's digest.
        evaluator: How answers are obtained; None for the dataset's own way.
        participant: Who entered the subject, where the benchmark service asks.
        request: The call's name, where it has one.
    """

    dataset: str
    version: str
    subject: str
    evaluator: Evaluator | None
    participant: str
    request: RequestKey | None = None


@dataclass(frozen=True, slots=True)
class WantedRun:
    """A run that may be started.

    Attributes:
        caller: Who asks.
        request: The call's name, where it has one.
        definition: The dataset.
        version: The version's digest; empty for the newest.
        evaluator: How answers are obtained.
        model: The subject.
    """

    caller: str
    request: RequestKey | None
    definition: Definition
    version: str
    evaluator: Evaluator
    model: Model


class Benchmarking:
    """Starts runs.

    Args:
        database: The service's database.
        kinds: The kinds of dataset, by name.
        models: Finds subjects.
        rights: Who may.
        standings: Says how runs stand.
        runner: Evaluates what is started.
        changes: Woken after a start.
        clock: What time it is.
    """

    def __init__(
        self,
        database: Database,
        kinds: Mapping[str, Kind],
        models: Models,
        rights: Rights,
        standings: Standings,
        runner: Runner,
        changes: Changes,
        clock: Clock,
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._models = models
        self._rights = rights
        self._standings = standings
        self._runner = runner
        self._changes = changes
        self._clock = clock

    async def prepare(self, caller: str, new: NewRun) -> WantedRun | StartedRun:
        """Check what is to be run.

        Returns:
            What may be started, or what a call with this name has started before.

        Raises:
            AlreadyExists: The call's name is taken by another one.
            NotFound: There is no such dataset or model.
            PermissionDenied: The caller may not run models on it, or not this model.
            FailedPrecondition: The dataset cannot be judged with the evaluator.
        """

        def look(connection: Connection) -> tuple[Definition, StartedRun | None]:
            definition = self._rights.usable_definition(connection, caller, new.dataset)
            return definition, named_requests.find_run(connection, caller, new.request)

        definition, before = await self._database.read(look)
        if before is not None:
            return before
        evaluator = new.evaluator or Evaluator(definition.evaluator)
        usable = require_kind(self._kinds, definition).evaluators
        if evaluator not in usable:
            raise FailedPrecondition(
                reasons.ERROR_REASON_EVALUATOR_MISMATCH,
                f"evaluator: {definition.id} cannot be used with {evaluator}; use "
                + " or ".join(sorted(usable)),
            )
        model = await self._models.find_subject(parameters_of(definition), new.subject)
        participant = new.participant if self._rights.is_benchmark(caller) else caller
        if model.owner and model.owner != participant:
            raise PermissionDenied(
                reasons.ERROR_REASON_SUBJECT_NOT_OWNED,
                "subject: it was uploaded by somebody else, and only its owner may enter it; sign "
                "with the owner's wallet, or name another one",
            )
        return WantedRun(caller, new.request, definition, new.version, evaluator, model)

    def start(self, connection: Connection, wanted: WantedRun | StartedRun) -> RunScore:
        """Start the run, or find it; the failed questions of an ended one are opened again.

        A call with the name of an earlier one starts nothing and opens nothing.

        Raises:
            AlreadyExists: The call's name is taken by another one.
            NotFound: There is no such version.
            FailedPrecondition: The dataset has no questions.
            Unavailable: Questions are to be asked, and what the version was made with is not
                installed any more.
        """
        if isinstance(wanted, StartedRun):
            return self._standing(connection, wanted)
        now = self._clock.now()
        before = named_requests.claim(connection, wanted.caller, wanted.request, now)
        if before is not None:
            return self._standing(connection, before)
        version = require_version(connection, wanted.definition, wanted.version)
        try:
            run = self._find_or_add(connection, wanted, version, now)
        except NotUsable as error:
            raise Unavailable(
                reasons.ERROR_REASON_UNAVAILABLE, f"version: {error.problem.reason}"
            ) from error
        named_requests.record(connection, wanted.caller, wanted.request, run.id, version.id)
        return self._standings.of(connection, run, version)

    def started(self) -> None:
        """Have a run taken up; called once its start is committed."""
        self._changes.notify()
        self._runner.wake()

    def _find_or_add(
        self, connection: Connection, wanted: WantedRun, version: Version, now: datetime
    ) -> Run:
        """The run, under way or done.

        Raises:
            NotUsable: Its questions cannot be asked with what is installed.
        """
        what = (self._kinds, wanted.definition, version, wanted.evaluator)
        parameters = evaluator_parameters(*what)
        identifier = run_id(version.digest, wanted.model.digest, parameters)
        run = runs.find_run(connection, identifier, lock=True)
        if run is None:
            runs.wait_for_turn(connection)
            # Another call may have made it meanwhile.
            run = runs.find_run(connection, identifier, lock=True)
        if run is None:
            parts = usable_parts(*what, parameters)
            return runs.add_run(
                connection,
                identifier,
                version,
                definitions.keep_model(connection, wanted.model),
                wanted.evaluator.value,
                parameters,
                parts.evaluator.full_marks,
                now,
            )
        is_news = askings.add(connection, run.id, version.id)
        if run.state in RETRIED:
            usable_parts(*what, parameters)
            return _retry(connection, run)
        # Its new watchers are told of it.
        return runs.save_run(connection, run) if is_news else run

    def _standing(self, connection: Connection, started: StartedRun) -> RunScore:
        run = runs.require_run(connection, started.run)
        version = definitions.version_by_id(connection, started.version)
        return self._standings.of(connection, run, version)


def _retry(connection: Connection, run: Run) -> Run:
    if run.says_nothing:
        evaluations.reopen_all(connection, run.id)
    else:
        evaluations.reopen_failed(connection, run.id)
    return runs.save_run(connection, reopened(run))
