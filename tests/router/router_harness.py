"""A real router on a free port, with keys for everybody who calls it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_router.service import SERVICE
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.router.worker_double import WorkerDouble, score

D = TypeVar("D", bound=Message)

MODEL = find_model("SmolLM2-135M-Instruct.Q4_1").sha256 or ""


class RouterHarness:
    """A running router.

    Attributes:
        service: The service.
        dataset: The key of the dataset service.
    """

    def __init__(self, service: ServiceUnderTest, dataset: Identity, stack: AsyncExitStack) -> None:
        self.service = service
        self.dataset = dataset
        self._stack = stack

    async def stub(self, identity: Identity | None) -> router_pb2_grpc.RouterServiceAsyncStub:
        """The router as an identity sees it."""
        channel = await self._stack.enter_async_context(self.service.channel(identity))
        stub: router_pb2_grpc.RouterServiceAsyncStub = router_pb2_grpc.RouterServiceStub(channel)
        return stub

    async def operator(self) -> router_pb2_grpc.RouterServiceAsyncStub:
        return await self.stub(self.service.operator)

    async def worker(self, **offer: Any) -> WorkerDouble:
        """A worker that has registered."""
        double = await self._stack.enter_async_context(WorkerDouble.new())
        await self.admit(double)
        await double.register(await self.stub(double.identity), **offer)
        return double

    async def unregistered_worker(self) -> WorkerDouble:
        """A worker that is admitted, and runs."""
        double = await self._stack.enter_async_context(WorkerDouble.new())
        await self.admit(double)
        return double

    async def admit(self, double: WorkerDouble, kinds: Iterable[int] = (1, 2, 3)) -> None:
        operator = await self.operator()
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(
                worker=double.address, kinds=[router_pb2.WorkerKind.ValueType(k) for k in kinds]
            )
        )


@asynccontextmanager
async def running_router(data_dir: Path, **settings: Any) -> AsyncIterator[RouterHarness]:
    """Run a router whose leases last for the length of a test."""
    dataset = Identity.load_or_create(data_dir / "keys" / "dataset.json")
    values = {"dataset_address": dataset.address, "lease_seconds": 600.0, **settings}
    async with (
        running(SERVICE, data_dir, **values) as service,
        AsyncExitStack() as stack,
    ):
        yield RouterHarness(service, dataset, stack)


def questions(count: int) -> list[inference_pb2.ChoiceQuestion]:
    """Questions with three choices each."""
    return [
        inference_pb2.ChoiceQuestion(
            id=f"q{number}", prompt=f"Question {number}?", choices=[" a", " bb", " ccc"]
        )
        for number in range(count)
    ]


def scoring(count: int, **fields: Any) -> inference_pb2.ScoreChoicesRequest:
    """A request to score so many questions."""
    return inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest=MODEL),
        questions=questions(count),
        reference="run",
        **fields,
    )


async def all_of(
    call: aio.UnaryStreamCall[
        inference_pb2.ScoreChoicesRequest, inference_pb2.ScoreChoicesResponse
    ],
) -> list[inference_pb2.ScoreChoicesResponse]:
    return [response async for response in call]


def results_of(
    responses: list[inference_pb2.ScoreChoicesResponse],
) -> list[inference_pb2.QuestionResult]:
    return [result for response in responses for result in response.results.results]


def assert_complete(responses: list[inference_pb2.ScoreChoicesResponse], count: int) -> None:
    """Every question was scored exactly once, by right numbers, and the end says so."""
    results = results_of(responses)
    assert Counter(result.id for result in results) == Counter(f"q{n}" for n in range(count))
    for result in results:
        prompt = f"Question {result.id[1:]}?"
        expected = [score(prompt, choice) for choice in (" a", " bb", " ccc")]
        assert [s.sum_logprob for s in result.scores] == expected
        assert result.provenance.model_digest == MODEL
    assert responses[-1].WhichOneof("event") == "complete"
    assert (responses[-1].complete.scored, responses[-1].complete.failed) == (count, 0)
    assert {response.reference for response in responses} == {"run"}


def infer(prompt: str = "The capital of France is", **fields: object) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=MODEL),
        prompt=prompt,
        reference="mine",
        **fields,  # type: ignore[arg-type]
    )


async def text_of(
    stub: router_pb2_grpc.RouterServiceAsyncStub, request: inference_pb2.InferRequest
) -> str:
    return "".join([response.chunk.text async for response in stub.Infer(request)])


async def someone(router: RouterHarness) -> router_pb2_grpc.RouterServiceAsyncStub:
    return await router.stub(Identity.generate())


async def idle(router: RouterHarness) -> router_pb2.GetStatisticsResponse:
    """The statistics, once no slot is taken."""
    stub = await router.operator()
    async with asyncio.timeout(30):
        while True:
            statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
            if not statistics.busy_slots:
                return statistics


def error_of(error: aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The one ErrorInfo of an error."""
    found = _details_of(error, error_details_pb2.ErrorInfo)
    assert len(found) == 1
    return found[0]


def field_of(error: aio.AioRpcError) -> str:
    """The field that an error's sentence begins with; the sentence goes on with the remedy."""
    field, _, sentence = (error.details() or "").partition(": ")
    assert ";" in sentence
    return field


def fields_of(error: aio.AioRpcError) -> set[str]:
    """The fields that an INVALID_ARGUMENT lists as violated, each in its sentence too."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(error).reason == "INVALID_FIELD"
    (found,) = _details_of(error, error_details_pb2.BadRequest)
    fields = {violation.field for violation in found.field_violations}
    assert all(f"{field}: " in (error.details() or "") for field in fields)
    return fields


def _details_of(error: aio.AioRpcError, kind: type[D]) -> list[D]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    found = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            found.append(message)
    return found
