"""The dataset service's RPCs: unpack, call the domain, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.values import (
    Fields,
    InvalidFields,
    Violation,
    parse_dataset_id,
    parse_digest,
    parse_integer,
)
from evalpool_dataset.herd import Herd
from evalpool_dataset.loaders import Limits, LoadedQuestions, LoadProblems, QuestionLoader
from evalpool_dataset.messages import (
    dataset_message,
    model_message,
    question_message,
    result_message,
    score_message,
)
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.requests import NewFile, parse_benchmark, parse_create, parse_options
from evalpool_dataset.run import OPEN, Run, RunState, run_id
from evalpool_dataset.runner import Runner
from evalpool_dataset.scoring import Metric
from evalpool_dataset.settings import DatasetSettings
from evalpool_dataset.store import definitions, evaluations, runs
from evalpool_dataset.store.definitions import Definition, Model, Version
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    reason_name,
    reasons,
)
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime
from evalpool_runtime.watch import Changes

LOOK_AGAIN_SECONDS = 1.0
SILENT_CLIENT_SECONDS = 0.5
RUNS_A_READ = 200
RESULTS_A_READ = 200
EVALUATIONS_AT_ONCE = 1000


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Answers DatasetService."""

    def __init__(
        self,
        runtime: Runtime[DatasetSettings],
        database: Database,
        kinds: Mapping[str, Kind],
        herd: Herd,
        runner: Runner,
        changes: Changes,
        metrics: DatasetMetrics,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._kinds = kinds
        self._herd = herd
        self._runner = runner
        self._changes = changes
        self._metrics = metrics

    async def GetInfo(
        self, request: dataset_pb2.GetInfoRequest, context: Any
    ) -> dataset_pb2.GetInfoResponse:
        """Who this server is."""
        return dataset_pb2.GetInfoResponse(
            info=self._runtime.service_info(),
            kinds=sorted(self._kinds),
            evaluators=sorted({e.value for kind in self._kinds.values() for e in kind.evaluators}),
        )

    async def CreateDataset(
        self, request: dataset_pb2.CreateDatasetRequest, context: Any
    ) -> dataset_pb2.CreateDatasetResponse:
        """Make a dataset without questions."""
        owner = current_call().address
        new = parse_create(request, self._kinds)
        made = Definition(
            id=new.id,
            owner=owner,
            kind=new.kind.name,
            title=new.title,
            description=new.description,
            license=new.license,
            evaluator=new.parameters.evaluator.value,
            metric=new.parameters.metric.value,
            system_prompt=new.parameters.system_prompt,
            create_time=self._runtime.clock.now(),
        )

        def work(connection: Connection) -> dataset_pb2.CreateDatasetResponse:
            runs.wait_for_turn(connection)
            known = definitions.find_definition(connection, new.id)
            if known is not None:
                same = replace(
                    made,
                    create_time=known.create_time,
                    update_time=known.update_time,
                    newest_version=known.newest_version,
                )
                if known != same:
                    raise AlreadyExists(
                        reasons.ERROR_REASON_DATASET_EXISTS,
                        f'id: there is a dataset "{new.id}" already, by another owner or with '
                        "other settings; choose another id",
                        dataset=new.id,
                    )
                version = definitions.find_version(connection, known)
                return dataset_pb2.CreateDatasetResponse(
                    dataset=dataset_message(known, version, new.kind)
                )
            definitions.add_definition(connection, made)
            return dataset_pb2.CreateDatasetResponse(dataset=dataset_message(made, None, new.kind))

        return await once(self._database, dataset_pb2.CreateDatasetResponse, work)

    async def LoadData(
        self, request_iterator: AsyncIterator[dataset_pb2.LoadDataRequest], context: Any
    ) -> dataset_pb2.LoadDataResponse:
        """Load one file of questions as a new version."""
        try:
            return await self._load(request_iterator)
        except (DomainError, InvalidFields):
            await _pass_over(request_iterator, self._runtime.settings.max_file_bytes)
            raise

    async def _load(
        self, request_iterator: AsyncIterator[dataset_pb2.LoadDataRequest]
    ) -> dataset_pb2.LoadDataResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("options"):
            raise InvalidRequest(
                [Violation("options", "the first message has none; send the options first")]
            )
        new = parse_options(first.options)
        definition = await self._database.read(lambda c: self._own_definition(c, new.dataset))
        kind = self._kinds[definition.kind]
        parameters = _parameters(definition)
        loaded = await self._read_file(new, kind.parts(parameters).loader, request_iterator)
        digest = await asyncio.to_thread(kind.version, parameters, loaded.questions)
        now = self._runtime.clock.now()

        def work(connection: Connection) -> dataset_pb2.LoadDataResponse:
            runs.wait_for_turn(connection)
            present = definitions.require_definition(connection, definition.id)
            version, is_new = definitions.add_version(
                connection, present, digest, loaded.questions, new.source, loaded.sha256, now
            )
            present = replace(present, newest_version=version.id, update_time=now)
            return dataset_pb2.LoadDataResponse(
                dataset=dataset_message(present, version, kind), unchanged=not is_new
            )

        response = await self._database.write(work)
        self._metrics.loaded(len(loaded.questions))
        return response

    async def GetDataset(
        self, request: dataset_pb2.GetDatasetRequest, context: Any
    ) -> dataset_pb2.GetDatasetResponse:
        """One dataset's description."""
        fields = Fields()
        wanted = fields.parse("id", parse_dataset_id, request.id)
        if request.version:
            fields.parse("version", parse_digest, request.version)
        fields.check()

        def work(connection: Connection) -> dataset_pb2.Dataset:
            definition = definitions.require_definition(connection, wanted)
            version = definitions.find_version(connection, definition, request.version)
            if request.version and version is None:
                raise _no_version(wanted, request.version)
            return dataset_message(definition, version, self._kinds.get(definition.kind))

        return dataset_pb2.GetDatasetResponse(dataset=await self._database.read(work))

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_pb2.ListDatasetsResponse:
        """The datasets, by id."""
        size = _page_size(request.page_size)
        tokens = self._runtime.page_tokens
        after = tokens.decode("ListDatasets", None, request.page_token) or ""

        def work(connection: Connection) -> list[dataset_pb2.Dataset]:
            found = definitions.list_definitions(connection, after, size + 1)
            return [
                dataset_message(
                    definition,
                    definitions.find_version(connection, definition),
                    self._kinds.get(definition.kind),
                )
                for definition in found
            ]

        found = await self._database.read(work)
        return dataset_pb2.ListDatasetsResponse(
            datasets=found[:size],
            next_page_token=tokens.encode("ListDatasets", None, found[size - 1].id)
            if len(found) > size
            else "",
        )

    async def ListQuestions(
        self, request: dataset_pb2.ListQuestionsRequest, context: Any
    ) -> dataset_pb2.ListQuestionsResponse:
        """The questions of a version, for the owner."""
        size = _page_size(request.page_size)
        tokens = self._runtime.page_tokens
        scope = [request.dataset, request.version]
        # Later pages are of the first page's version, though a newer one may have come.
        digest, after = tokens.decode("ListQuestions", scope, request.page_token) or [
            request.version,
            0,
        ]

        def work(connection: Connection) -> tuple[str, list[dataset_pb2.Question]]:
            definition = self._own_definition(connection, request.dataset)
            version = _require_version(connection, definition, digest)
            found = definitions.list_questions(connection, version.id, after, size + 1)
            return version.digest, [question_message(stored.question) for stored in found]

        digest, found = await self._database.read(work)
        return dataset_pb2.ListQuestionsResponse(
            questions=found[:size],
            next_page_token=tokens.encode("ListQuestions", scope, [digest, found[size - 1].id])
            if len(found) > size
            else "",
        )

    async def GetModel(
        self, request: dataset_pb2.GetModelRequest, context: Any
    ) -> dataset_pb2.GetModelResponse:
        """One model that can be evaluated."""
        fields = Fields()
        digest = fields.parse("digest", parse_digest, request.digest)
        fields.check()
        return dataset_pb2.GetModelResponse(
            model=model_message(await self._require_model("digest", digest))
        )

    async def ListModels(
        self, request: dataset_pb2.ListModelsRequest, context: Any
    ) -> dataset_pb2.ListModelsResponse:
        """The models that have been evaluated here."""
        size = _page_size(request.page_size)
        tokens = self._runtime.page_tokens
        after = tokens.decode("ListModels", None, request.page_token) or ["", 0]
        found = await self._database.read(
            lambda c: definitions.list_models(c, (after[0], after[1]), size + 1)
        )
        last = found[size - 1] if len(found) > size else None
        return dataset_pb2.ListModelsResponse(
            models=[model_message(model) for model in found[:size]],
            next_page_token=tokens.encode("ListModels", None, [last.name, last.id]) if last else "",
        )

    async def Benchmark(
        self, request: dataset_pb2.BenchmarkRequest, context: Any
    ) -> dataset_pb2.BenchmarkResponse:
        """Start the run of a subject, or return the one that exists."""
        new = parse_benchmark(request)
        caller = current_call().address
        participant = new.participant if self._is_benchmark(caller) else caller
        definition = await self._database.read(lambda c: self._usable_definition(c, new.dataset))
        evaluator = new.evaluator or Evaluator(definition.evaluator)
        self._check_evaluator(definition, evaluator)
        model = await self._require_model("subject", new.subject)
        if model.owner and model.owner != participant:
            raise PermissionDenied(
                reasons.ERROR_REASON_SUBJECT_NOT_OWNED,
                "subject: the model was uploaded by somebody else, and only its owner may enter it",
            )
        now = self._runtime.clock.now()

        def work(connection: Connection) -> dataset_pb2.BenchmarkResponse:
            version = _require_version(connection, definition, new.version)
            identifier = run_id(version.digest, model.digest, evaluator.value)
            run = runs.find_run(connection, identifier, lock=True)
            if run is None:
                runs.wait_for_turn(connection)
                run = runs.find_run(connection, identifier, lock=True)
            if run is None:
                number = definitions.keep_model(connection, model)
                run = runs.add_run(
                    connection,
                    identifier,
                    version.id,
                    number,
                    evaluator.value,
                    version.question_count,
                    now,
                )
            elif run.state not in OPEN and run.state is not RunState.COMPLETE:
                run = runs.save_run(connection, _reopened(connection, run))
            return dataset_pb2.BenchmarkResponse(score=_score(connection, run))

        response = await once(self._database, dataset_pb2.BenchmarkResponse, work)
        self._changes.notify()
        self._runner.wake()
        return response

    async def Evaluate(
        self, request: dataset_pb2.EvaluateRequest, context: Any
    ) -> dataset_pb2.EvaluateResponse:
        """Take up open evaluations at once."""
        fields = Fields()
        limit = fields.attempt(
            "limit",
            lambda: parse_integer(
                request.limit,
                at_least=1,
                at_most=EVALUATIONS_AT_ONCE,
                default=EVALUATIONS_AT_ONCE,
            ),
        )
        fields.check()

        def work(connection: Connection) -> int:
            if request.run:
                self._visible_run(connection, request.run)
            scheduled = 0
            for run in runs.open_runs(connection):
                wanted = not request.run or run.id == request.run
                if wanted and self._sees(connection, run):
                    counts = evaluations.open_count(connection, run.id)
                    scheduled += counts.get("pending", 0) + counts.get("leased", 0)
            return min(scheduled, limit)

        scheduled = await self._database.read(work)
        await self._runner.expire()
        self._runner.wake()
        return dataset_pb2.EvaluateResponse(scheduled=scheduled)

    async def GetScore(
        self, request: dataset_pb2.GetScoreRequest, context: Any
    ) -> dataset_pb2.GetScoreResponse:
        """A run's standing."""
        return dataset_pb2.GetScoreResponse(
            score=await self._database.read(lambda c: _score(c, self._visible_run(c, request.run)))
        )

    async def WatchScores(
        self, request: dataset_pb2.WatchScoresRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.WatchScoresResponse]:
        """Stream the changes of runs' scores after a cursor."""
        fields = Fields()
        cursor = fields.attempt(
            "after_cursor", lambda: parse_integer(request.after_cursor, at_least=0, at_most=2**62)
        )
        fields.check()
        only = list(request.runs)
        await self._database.read(lambda c: [self._visible_run(c, run) for run in only])
        while not self._runtime.stopping.is_set():
            version = self._changes.version
            found, seen = await self._changed(cursor, only)
            read = seen > cursor
            cursor = max(cursor, seen)
            for score in found:
                yield dataset_pb2.WatchScoresResponse(score=score, cursor=score.cursor)
            if not read:
                await self._changes.wait(version, LOOK_AGAIN_SECONDS)
        raise self._runtime.stopping_error()

    async def ListResults(
        self, request: dataset_pb2.ListResultsRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.ListResultsResponse]:
        """Stream a run's evaluations, for the owner."""
        fields = Fields()
        after = fields.attempt(
            "after_question",
            lambda: parse_integer(request.after_question, at_least=0, at_most=2**31 - 1),
        )
        fields.check()
        while True:
            page = await self._results(request.run, after)
            for result in page:
                yield result_message(result)
            if len(page) < RESULTS_A_READ:
                return
            after = page[-1].ordinal

    async def _results(self, run: str, after: int) -> list[evaluations.Result]:
        def work(connection: Connection) -> list[evaluations.Result]:
            found = runs.require_run(connection, run)
            version = definitions.version_by_id(connection, found.version)
            self._own_definition(connection, version.definition)
            return evaluations.list_results(connection, run, after, RESULTS_A_READ)

        return await self._database.read(work)

    async def _changed(self, cursor: int, only: list[str]) -> tuple[list[dataset_pb2.Score], int]:
        def work(connection: Connection) -> tuple[list[dataset_pb2.Score], int]:
            found = runs.runs_after(connection, cursor, only, RUNS_A_READ)
            seen = found[-1].cursor if found else cursor
            visible = [run for run in found if self._sees(connection, run)]
            return [_score(connection, run) for run in visible], seen

        return await self._database.read(work)

    async def _read_file(
        self, new: NewFile, form: Any, messages: AsyncIterator[dataset_pb2.LoadDataRequest]
    ) -> LoadedQuestions:
        limits = Limits(file_bytes=self._runtime.settings.max_file_bytes)
        with QuestionLoader(new.format, form, labels=new.labels, limits=limits) as loader:
            async for message in messages:
                await asyncio.to_thread(loader.feed, message.chunk)
                if loader.stopped:
                    break
            loaded = await asyncio.to_thread(loader.finish)
        if isinstance(loaded, LoadProblems):
            raise InvalidRequest(
                [Violation(problem.path, problem.message) for problem in loaded.told],
                reason=reasons.ERROR_REASON_INVALID_ROWS,
                message=loaded.summary,
                problems=str(loaded.count),
            )
        if new.sha256 != loaded.sha256:
            raise FailedPrecondition(
                reasons.ERROR_REASON_DIGEST_MISMATCH,
                f"options.sha256: the file that came has {loaded.sha256}; send it again",
            )
        return loaded

    async def _require_model(self, field: str, digest: str) -> Model:
        found = await self._herd.find_model(digest)
        if found is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"{field}: the herd knows no model with the digest {digest}; name one of "
                "`evalpool model list`, or upload yours with `evalpool model push`",
                digest=digest,
            )
        return found

    def _is_benchmark(self, caller: str) -> bool:
        return bool(caller) and caller == self._runtime.settings.benchmark_address

    def _own_definition(self, connection: Connection, dataset: str) -> Definition:
        """A dataset of the caller's own."""
        found = definitions.require_definition(connection, dataset)
        if current_call().address != found.owner:
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                f"only the owner of {dataset} may do this; sign with the owner's wallet",
            )
        return found

    def _usable_definition(self, connection: Connection, dataset: str) -> Definition:
        """A dataset that the caller may run models on."""
        if self._is_benchmark(current_call().address):
            return definitions.require_definition(connection, dataset)
        return self._own_definition(connection, dataset)

    def _sees(self, connection: Connection, run: Run) -> bool:
        caller = current_call().address
        if self._is_benchmark(caller):
            return True
        version = definitions.version_by_id(connection, run.version)
        return definitions.require_definition(connection, version.definition).owner == caller

    def _visible_run(self, connection: Connection, run: str) -> Run:
        found = runs.require_run(connection, run)
        if not self._sees(connection, found):
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                "run: only the dataset's owner may see it; sign with the owner's wallet",
            )
        return found

    def _check_evaluator(self, definition: Definition, evaluator: Evaluator) -> None:
        usable = self._kinds[definition.kind].evaluators
        if evaluator not in usable:
            raise FailedPrecondition(
                reasons.ERROR_REASON_EVALUATOR_MISMATCH,
                f"evaluator: {definition.id} cannot be used with {evaluator.value}; use "
                + " or ".join(sorted(e.value for e in usable)),
            )


async def _pass_over(messages: AsyncIterator[dataset_pb2.LoadDataRequest], most: int) -> None:
    """Let a client finish what it is sending: some lose the answer to a call they still write to.

    Args:
        messages: What it sends.
        most: Bytes after which it is answered all the same.
    """
    passed = 0
    while passed < most:
        reading = asyncio.ensure_future(_next(messages))
        done, _ = await asyncio.wait({reading}, timeout=SILENT_CLIENT_SECONDS)
        if not done:
            reading.cancel()
            return
        message = reading.result()
        if message is None:
            return
        passed += len(message.chunk)


async def _next(
    messages: AsyncIterator[dataset_pb2.LoadDataRequest],
) -> dataset_pb2.LoadDataRequest | None:
    return await anext(aiter(messages), None)


def _parameters(definition: Definition) -> Parameters:
    return Parameters(
        Evaluator(definition.evaluator), Metric(definition.metric), definition.system_prompt
    )


def _reopened(connection: Connection, run: Run) -> Run:
    """A run whose failed questions are open again; all of them, where its scores said nothing."""
    fresh = replace(run, state=RunState.QUEUED, reason="", reason_code="", end_time=None)
    if run.reason_code == reason_name(reasons.ERROR_REASON_DEGENERATE_SCORES):
        evaluations.reopen_all(connection, run.id)
        return replace(fresh, correct=0, done=0, failed=0, metric_counts={}, provenance=None)
    evaluations.reopen_failed(connection, run.id)
    return replace(fresh, failed=0)


def _score(connection: Connection, run: Run) -> dataset_pb2.Score:
    version = definitions.version_by_id(connection, run.version)
    return score_message(
        run,
        definitions.require_definition(connection, version.definition),
        version,
        definitions.model_by_id(connection, run.model),
        runs.queue_position(connection, run),
    )


def _require_version(connection: Connection, definition: Definition, digest: str) -> Version:
    found = definitions.find_version(connection, definition, digest)
    if found is None and digest:
        raise _no_version(definition.id, digest)
    if found is None:
        raise FailedPrecondition(
            reasons.ERROR_REASON_DATASET_EMPTY,
            f"dataset: {definition.id} has no questions yet; load a file with "
            "`evalpool dataset load`",
        )
    return found


def _no_version(dataset: str, digest: str) -> NotFound:
    return NotFound(
        reasons.ERROR_REASON_DATASET_NOT_FOUND,
        f"version: {dataset} has no version {digest}; leave it empty for the newest",
    )


def _page_size(value: int) -> int:
    fields = Fields()
    size = fields.attempt(
        "page_size", lambda: parse_integer(value, at_least=1, at_most=1000, default=100)
    )
    fields.check()
    return size
