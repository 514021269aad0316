"""Bad input over real gRPC: one reason, the field and the remedy, and nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.identity import Identity
from evalpool_dataset.requests import MAX_LABELS_BYTES
from tests.dataset.dataset_harness import (
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    lines,
    nothing_changes,
    refusal,
    running_dataset,
    sending,
)
from tests.dataset.router_double import RouterDouble

if TYPE_CHECKING:
    Stub = dataset_pb2_grpc.DatasetServiceAsyncStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOWHERE = "n" * 42 + "A"
"""An id that nothing has."""

Call = Callable[["Stub"], Awaitable[Any]]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    """A service with an evaluated dataset "d" and an empty one "empty"."""
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL) as router,
        running_dataset(tmp_path, router) as made,
    ):
        await made.create("empty")
        await evaluated(await made.load(lines(3)))
        yield made


def options(**fields: Any) -> dataset_pb2.LoadOptions:
    given: dict[str, Any] = {"dataset": "d", "format": dataset_pb2.DATA_FORMAT_JSON_LINES}
    return dataset_pb2.LoadOptions(**given | fields)


def load(content: bytes, **fields: Any) -> Call:
    return lambda stub: stub.LoadData(sending(options(**fields), [content]))


def benchmark(**fields: Any) -> Call:
    request = dataset_pb2.BenchmarkRequest(**{"dataset": "d", "subject": MODEL} | fields)
    return lambda stub: stub.Benchmark(request)


def create(**fields: Any) -> Call:
    request = dataset_pb2.CreateDatasetRequest(**{"id": "new", "kind": "siqa"} | fields)
    return lambda stub: stub.CreateDataset(request)


def describe(**fields: Any) -> Call:
    return lambda stub: stub.GetDataset(dataset_pb2.GetDatasetRequest(**fields))


def questions(**fields: Any) -> Call:
    return lambda stub: stub.ListQuestions(dataset_pb2.ListQuestionsRequest(**fields))


def score(run: str) -> Call:
    return lambda stub: stub.GetScore(dataset_pb2.GetScoreRequest(run=run))


def evaluate(**fields: Any) -> Call:
    return lambda stub: stub.Evaluate(dataset_pb2.EvaluateRequest(**fields))


def watch(**fields: Any) -> Call:
    return lambda stub: stub.WatchScores(dataset_pb2.WatchScoresRequest(**fields)).read()


def results(**fields: Any) -> Call:
    return lambda stub: stub.ListResults(dataset_pb2.ListResultsRequest(**fields)).read()


def model(digest: str) -> Call:
    return lambda stub: stub.GetModel(dataset_pb2.GetModelRequest(digest=digest))


REFUSED: dict[str, tuple[Call, grpc.StatusCode, str, str, str]] = {
    # What is called, the code, the reason, the field, and words of the remedy.
    "loading into an unknown dataset": (
        load(lines(1), dataset="nowhere"),
        NOT_FOUND,
        "DATASET_NOT_FOUND",
        "options.dataset",
        "ListDatasets",
    ),
    "an unknown dataset": (
        describe(id="nowhere"), NOT_FOUND, "DATASET_NOT_FOUND", "id", "ListDatasets",
    ),
    "questions of an unknown dataset": (
        questions(dataset="nowhere"), NOT_FOUND, "DATASET_NOT_FOUND", "dataset", "ListDatasets",
    ),
    "a run on an unknown dataset": (
        benchmark(dataset="nowhere"), NOT_FOUND, "DATASET_NOT_FOUND", "dataset", "ListDatasets",
    ),
    "an unknown version": (
        describe(id="d", version="0" * 64), NOT_FOUND, "DATASET_NOT_FOUND", "version", "leave it",
    ),
    "questions of an unknown version": (
        questions(dataset="d", version="0" * 64),
        NOT_FOUND,
        "DATASET_NOT_FOUND",
        "version",
        "leave it empty",
    ),
    "a run on an unknown version": (
        benchmark(version="0" * 64), NOT_FOUND, "DATASET_NOT_FOUND", "version", "leave it empty",
    ),
    "an unknown model": (model("c" * 64), NOT_FOUND, "MODEL_NOT_FOUND", "digest", "model push"),
    "a run of an unknown model": (
        benchmark(subject="c" * 64), NOT_FOUND, "MODEL_NOT_FOUND", "subject", "model push",
    ),
    "an unknown run": (score(NOWHERE), NOT_FOUND, "RUN_NOT_FOUND", "run", "Benchmark"),
    "an unknown run to evaluate": (
        evaluate(run=NOWHERE), NOT_FOUND, "RUN_NOT_FOUND", "run", "Benchmark",
    ),
    "an unknown run to watch": (
        watch(runs=[NOWHERE]), NOT_FOUND, "RUN_NOT_FOUND", "runs[0]", "Benchmark",
    ),
    "results of an unknown run": (
        results(run=NOWHERE), NOT_FOUND, "RUN_NOT_FOUND", "run", "Benchmark",
    ),
    "a dataset without questions": (
        benchmark(dataset="empty"), PRECONDITION, "DATASET_EMPTY", "dataset", "LoadData",
    ),
    "questions of a dataset without any": (
        questions(dataset="empty"), PRECONDITION, "DATASET_EMPTY", "dataset", "LoadData",
    ),
    "an evaluator that the kind cannot use": (
        benchmark(evaluator=dataset_pb2.EVALUATOR_JUDGE),
        PRECONDITION,
        "EVALUATOR_MISMATCH",
        "evaluator",
        "use letter or loglikelihood",
    ),
    "a dataset with an evaluator that its kind cannot use": (
        create(evaluator=dataset_pb2.EVALUATOR_JUDGE),
        INVALID,
        "EVALUATOR_MISMATCH",
        "evaluator",
        "give letter or loglikelihood",
    ),
    "an unknown evaluator": (
        benchmark(evaluator=77), INVALID, "INVALID_FIELD", "evaluator", "leave it unset",
    ),
    "a dataset with an unknown evaluator": (
        create(evaluator=77), INVALID, "INVALID_FIELD", "evaluator", "loglikelihood or letter",
    ),
    "a dataset with an unknown metric": (
        create(metric=77), INVALID, "INVALID_FIELD", "metric", "acc or acc_norm or acc_bytes",
    ),
    "a dataset of an unknown kind": (
        create(kind="chess"), INVALID, "INVALID_FIELD", "kind",
        "give one of continuation, ending, generation, multiple_choice, open_ended, siqa",
    ),
    "a dataset's id that is taken": (
        create(id="d", title="Another"),
        grpc.StatusCode.ALREADY_EXISTS,
        "DATASET_EXISTS",
        "id",
        "choose another id",
    ),
    "a file that was cut off": (
        load(lines(4), sha256="0" * 64),
        PRECONDITION,
        "DIGEST_MISMATCH",
        "options.sha256",
        "send it again",
    ),
    "a digest that is none": (model("xyz"), INVALID, "INVALID_FIELD", "digest", "64 lower-case"),
    "a subject that is none": (
        benchmark(subject="M" * 64), INVALID, "INVALID_FIELD", "subject", "64 lower-case",
    ),
    "a version that is none": (
        questions(dataset="d", version="\0"), INVALID, "INVALID_FIELD", "version", "64 lower-case",
    ),
    "a dataset's id that is none": (
        questions(dataset="a\0"), INVALID, "INVALID_FIELD", "dataset", "lower-case letters",
    ),
    "a run's id that is none": (score("\0"), INVALID, "INVALID_FIELD", "run", "43 characters"),
    "no run's id": (results(), INVALID, "INVALID_FIELD", "run", "43 characters"),
    "a watched run's id that is none": (
        watch(runs=[NOWHERE, "x"]), INVALID, "INVALID_FIELD", "runs[1]", "43 characters",
    ),
    "too many watched runs": (
        watch(runs=[NOWHERE] * 1001), INVALID, "INVALID_FIELD", "runs", "none for all",
    ),
    "a cursor below zero": (
        watch(after_cursor=-1), INVALID, "INVALID_FIELD", "after_cursor", "give 0 to",
    ),
    "a question below zero": (
        results(run=NOWHERE, after_question=-1),
        INVALID,
        "INVALID_FIELD",
        "after_question",
        "give 0 to",
    ),
    "a limit above 1,000": (
        evaluate(limit=1001), INVALID, "INVALID_FIELD", "limit", "give 1 to 1000",
    ),
    "a page above 1,000": (
        questions(dataset="d", page_size=1001),
        INVALID,
        "INVALID_FIELD",
        "page_size",
        "give 1 to 1000",
    ),
    "a page token of somebody else's making": (
        questions(dataset="d", page_token="AAAA"),
        INVALID,
        "INVALID_PAGE_TOKEN",
        "page_token",
        "leave it empty",
    ),
    "labels for more rows than there are": (
        load(lines(1).replace(b'"label"', b'"_label"'), labels=b"1\n2\n"),
        INVALID,
        "INVALID_ROWS",
        "options.labels",
        "give one a row",
    ),
    "more bytes of labels than may be": (
        load(lines(1), labels=b"1" * (MAX_LABELS_BYTES + 1)),
        INVALID,
        "INVALID_FIELD",
        "options.labels",
        "put each label into its row",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "code", "reason", "field", "remedy"), REFUSED.values(), ids=REFUSED
)
async def test_what_is_refused_names_the_field_and_the_remedy_and_changes_nothing(
    harness: DatasetHarness,
    call: Call,
    code: grpc.StatusCode,
    reason: str,
    field: str,
    remedy: str,
) -> None:
    stub = await harness.stub()

    async with nothing_changes(harness):
        error = await refusal(call(stub))

    assert (error.code, error.reason) == (code, reason)
    assert error.message.startswith(f"{field}: ")
    assert remedy in error.message
    if code is INVALID and reason != "INVALID_ROWS":
        assert [violation.field for violation in error.violations] == [field]


def forged(owner: Identity, server: str) -> str:
    """The owner's claims under somebody else's signature."""
    claims = owner.token(server).split(".")[:2]
    return ".".join([*claims, Identity.generate().token(server).split(".")[2]])


TOKENS: dict[str, tuple[Callable[[Identity, str], str | None], str]] = {
    "none": (lambda owner, server: None, "TOKEN_MISSING"),
    "an expired one": (
        lambda owner, server: owner.token(server, now=lambda: 1_700_000_000), "TOKEN_EXPIRED",
    ),
    "one for another server": (
        lambda owner, server: owner.token(owner.address), "TOKEN_FOR_ANOTHER_SERVER",
    ),
    "one signed by another key": (forged, "TOKEN_INVALID"),
}  # fmt: skip

SIGNED: list[Callable[[Stub, aio.Metadata], Awaitable[Any]]] = [
    lambda s, m: s.CreateDataset(
        dataset_pb2.CreateDatasetRequest(id="new", kind="siqa"), metadata=m
    ),
    lambda s, m: s.LoadData(sending(options(), [lines(4)]), metadata=m),
    lambda s, m: s.GetDataset(dataset_pb2.GetDatasetRequest(id="d"), metadata=m),
    lambda s, m: s.ListDatasets(dataset_pb2.ListDatasetsRequest(), metadata=m),
    lambda s, m: s.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d"), metadata=m),
    lambda s, m: s.GetModel(dataset_pb2.GetModelRequest(digest=MODEL), metadata=m),
    lambda s, m: s.GetSubject(
        dataset_pb2.GetSubjectRequest(dataset="d", subject=MODEL), metadata=m
    ),
    lambda s, m: s.ListModels(dataset_pb2.ListModelsRequest(), metadata=m),
    lambda s, m: s.Benchmark(
        dataset_pb2.BenchmarkRequest(dataset="d", subject=OTHER_MODEL), metadata=m
    ),
    lambda s, m: s.Evaluate(dataset_pb2.EvaluateRequest(), metadata=m),
    lambda s, m: s.GetScore(dataset_pb2.GetScoreRequest(run=NOWHERE), metadata=m),
    lambda s, m: s.WatchScores(dataset_pb2.WatchScoresRequest(), metadata=m).read(),
    lambda s, m: s.ListResults(dataset_pb2.ListResultsRequest(run=NOWHERE), metadata=m).read(),
]


@pytest.mark.parametrize(("token", "reason"), TOKENS.values(), ids=TOKENS)
async def test_every_method_but_the_public_one_is_refused_without_a_good_token(
    harness: DatasetHarness, token: Callable[[Identity, str], str | None], reason: str
) -> None:
    methods = dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].methods
    assert len(SIGNED) == len(methods) - 1
    async with harness.service.channel(None) as channel, nothing_changes(harness):
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        for call in SIGNED:
            made = token(harness.owner, harness.service.address)
            metadata = aio.Metadata() if made is None else bearer(made)
            async with asyncio.timeout(30):
                error = await refusal(call(stub, metadata))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


def bearer(token: str) -> aio.Metadata:
    return aio.Metadata(("authorization", f"Bearer {token}"))
