"""The dataset service's RPCs: unpack, call the domain, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool_dataset import datasets
from evalpool_dataset.benchmarking import Benchmarking
from evalpool_dataset.installed import parameters_of
from evalpool_dataset.loading import Loading
from evalpool_dataset.messages import (
    dataset_message,
    model_message,
    question_messages,
    result_message,
    score_message,
    subject_message,
)
from evalpool_dataset.models import Models
from evalpool_dataset.parts import Kind, Parameters
from evalpool_dataset.question import Question
from evalpool_dataset.requests import (
    parse_benchmark,
    parse_create,
    parse_evaluate,
    parse_get_dataset,
    parse_get_subject,
    parse_list_questions,
    parse_list_results,
    parse_model_digest,
    parse_options,
    parse_page_size,
    parse_run,
    parse_watch_scores,
)
from evalpool_dataset.rights import Rights
from evalpool_dataset.scores import Scores
from evalpool_dataset.settings import DatasetSettings
from evalpool_dataset.store import definitions
from evalpool_dataset.store.definitions import Version
from evalpool_dataset.sweep import Sweep
from evalpool_dataset.upload import Upload
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the service does.

    Attributes:
        kinds: The kinds of dataset, by name.
        rights: Who may do what.
        loading: Loads files of questions.
        models: Finds and lists models.
        benchmarking: Starts and retries runs.
        sweep: Has open evaluations taken up.
        scores: Tells how runs stand.
    """

    kinds: Mapping[str, Kind]
    rights: Rights
    loading: Loading
    models: Models
    benchmarking: Benchmarking
    sweep: Sweep
    scores: Scores


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Answers DatasetService.

    Args:
        runtime: What the service runs on.
        database: Its database.
        use_cases: What it does.
    """

    def __init__(
        self, runtime: Runtime[DatasetSettings], database: Database, use_cases: UseCases
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._do = use_cases

    async def GetInfo(
        self, request: dataset_pb2.GetInfoRequest, context: Any
    ) -> dataset_pb2.GetInfoResponse:
        """Who this server is."""
        kinds = self._do.kinds
        return dataset_pb2.GetInfoResponse(
            info=self._runtime.service_info(),
            kinds=sorted(kinds),
            evaluators=sorted({e.value for kind in kinds.values() for e in kind.evaluators}),
        )

    async def CreateDataset(
        self, request: dataset_pb2.CreateDatasetRequest, context: Any
    ) -> dataset_pb2.CreateDatasetResponse:
        """Make a dataset without questions."""
        new = parse_create(request, self._do.kinds)
        known = await self._database.read(partial(definitions.find_definition, dataset=new.id))
        before = parameters_of(known) if known is not None else None
        new = replace(new, parameters=await self._do.models.settled(new.parameters, before))
        owner, now = current_call().address, self._runtime.clock.now()

        def work(connection: Connection) -> dataset_pb2.CreateDatasetResponse:
            found = datasets.make(connection, new, owner, now)
            return dataset_pb2.CreateDatasetResponse(dataset=self._dataset(found))

        return await once(self._database, dataset_pb2.CreateDatasetResponse, work)

    async def LoadData(
        self, request_iterator: AsyncIterator[dataset_pb2.LoadDataRequest], context: Any
    ) -> dataset_pb2.LoadDataResponse:
        """Load one file of questions as a new version."""
        call = current_call()
        async with Upload(request_iterator, self._runtime.settings.max_file_bytes) as upload:
            options = await upload.options()
            new = parse_options(options)
            read = await self._do.loading.read(call.address, new, upload.chunks())
        # They hold the file's digest, and so stand for all that was sent.
        call.request = options

        def work(connection: Connection) -> dataset_pb2.LoadDataResponse:
            found, changed = self._do.loading.keep(connection, read)
            return dataset_pb2.LoadDataResponse(dataset=self._dataset(found), unchanged=not changed)

        return await once(self._database, dataset_pb2.LoadDataResponse, work)

    async def GetDataset(
        self, request: dataset_pb2.GetDatasetRequest, context: Any
    ) -> dataset_pb2.GetDatasetResponse:
        """One dataset's description."""
        dataset, version = parse_get_dataset(request)
        found = await self._database.read(
            partial(datasets.describe, dataset=dataset, digest=version)
        )
        return dataset_pb2.GetDatasetResponse(dataset=self._dataset(found))

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_pb2.ListDatasetsResponse:
        """The datasets, by id."""
        size = parse_page_size(request.page_size)
        tokens = self._runtime.page_tokens
        after = tokens.decode("ListDatasets", None, request.page_token) or ""
        found = await self._database.read(partial(datasets.page, after=after, limit=size + 1))
        last = found[size - 1].definition.id if len(found) > size else None
        return dataset_pb2.ListDatasetsResponse(
            datasets=map(self._dataset, found[:size]),
            next_page_token=tokens.encode("ListDatasets", None, last) if last else "",
        )

    async def ListQuestions(
        self, request: dataset_pb2.ListQuestionsRequest, context: Any
    ) -> dataset_pb2.ListQuestionsResponse:
        """The questions of a version, for the owner."""
        dataset, version, size = parse_list_questions(request)
        tokens, scope = self._runtime.page_tokens, [dataset, version]
        # Later pages are of the first page's version, though a newer one may have come.
        page = tokens.decode("ListQuestions", scope, request.page_token)
        digest, after = page or (version, 0)
        caller = current_call().address

        def work(connection: Connection) -> tuple[Version, list[Question]]:
            definition = self._do.rights.own_definition(connection, caller, dataset)
            return datasets.questions(connection, definition, digest, after, size + 1)

        listed, found = await self._database.read(work)
        shown = question_messages(found[:size])
        last = [listed.digest, shown[-1].id] if len(found) > len(shown) else None
        return dataset_pb2.ListQuestionsResponse(
            questions=shown,
            next_page_token=tokens.encode("ListQuestions", scope, last) if last else "",
        )

    async def GetModel(
        self, request: dataset_pb2.GetModelRequest, context: Any
    ) -> dataset_pb2.GetModelResponse:
        """One model that can be evaluated."""
        found = await self._do.models.find(parse_model_digest(request.digest), "digest")
        return dataset_pb2.GetModelResponse(model=model_message(found))

    async def GetSubject(
        self, request: dataset_pb2.GetSubjectRequest, context: Any
    ) -> dataset_pb2.GetSubjectResponse:
        """What would be evaluated on a dataset under a digest."""
        dataset, version, subject = parse_get_subject(request)
        caller = current_call().address

        def work(connection: Connection) -> Parameters:
            definition = self._do.rights.usable_definition(connection, caller, dataset)
            datasets.require_version(connection, definition, version)
            return parameters_of(definition)

        chosen = await self._database.read(work)
        found = await self._do.models.find_subject(chosen, subject)
        return dataset_pb2.GetSubjectResponse(subject=subject_message(found, chosen))

    async def ListModels(
        self, request: dataset_pb2.ListModelsRequest, context: Any
    ) -> dataset_pb2.ListModelsResponse:
        """The models that have been evaluated here."""
        size = parse_page_size(request.page_size)
        tokens = self._runtime.page_tokens
        name, number = tokens.decode("ListModels", None, request.page_token) or ("", 0)
        found = await self._do.models.page((name, number), size + 1)
        last = [found[size - 1].name, found[size - 1].id] if len(found) > size else None
        return dataset_pb2.ListModelsResponse(
            models=map(model_message, found[:size]),
            next_page_token=tokens.encode("ListModels", None, last) if last else "",
        )

    async def Benchmark(
        self, request: dataset_pb2.BenchmarkRequest, context: Any
    ) -> dataset_pb2.BenchmarkResponse:
        """Start the run of a subject, or return the one that exists."""
        benchmarking = self._do.benchmarking
        wanted = await benchmarking.prepare(current_call().address, parse_benchmark(request))

        def work(connection: Connection) -> dataset_pb2.BenchmarkResponse:
            score = benchmarking.start(connection, wanted)
            return dataset_pb2.BenchmarkResponse(score=score_message(score))

        response = await once(self._database, dataset_pb2.BenchmarkResponse, work)
        benchmarking.started()
        return response

    async def Evaluate(
        self, request: dataset_pb2.EvaluateRequest, context: Any
    ) -> dataset_pb2.EvaluateResponse:
        """Take up open evaluations at once."""
        run, limit = parse_evaluate(request)
        scheduled = await self._do.sweep.run_for(current_call().address, run, limit)
        return dataset_pb2.EvaluateResponse(scheduled=scheduled)

    async def GetScore(
        self, request: dataset_pb2.GetScoreRequest, context: Any
    ) -> dataset_pb2.GetScoreResponse:
        """A run's standing."""
        score = await self._do.scores.get(current_call().address, parse_run(request.run))
        return dataset_pb2.GetScoreResponse(score=score_message(score))

    async def WatchScores(
        self, request: dataset_pb2.WatchScoresRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.WatchScoresResponse]:
        """Stream the changes of runs' scores after a cursor."""
        runs, cursor = parse_watch_scores(request)
        async for score in self._do.scores.watch(current_call().address, runs, cursor):
            yield dataset_pb2.WatchScoresResponse(
                score=score_message(score), cursor=score.run.cursor
            )
        raise self._runtime.stopping_error()

    async def ListResults(
        self, request: dataset_pb2.ListResultsRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.ListResultsResponse]:
        """Stream a run's evaluations, for the owner."""
        run, after = parse_list_results(request)
        async for result in self._do.scores.results(current_call().address, run, after):
            yield result_message(result)

    def _dataset(self, found: datasets.Described) -> dataset_pb2.Dataset:
        return dataset_message(found, self._do.kinds)
