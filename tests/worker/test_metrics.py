"""What the worker's metrics say of its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_runtime.testing import running
from evalpool_worker.engine import fake
from evalpool_worker.engine.base import (
    Engine,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    GenerationTimings,
)
from evalpool_worker.engine.errors import EngineError, InvalidParametersError
from evalpool_worker.metrics import WorkerMetrics
from evalpool_worker.served_model import ServedModel
from evalpool_worker.service import SERVICE
from evalpool_worker.slots import Slots
from tests.waiting import until
from tests.worker.service_calls import questions

Value = Callable[..., float | None]
Event = GenerationChunk | GenerationEnd

CHUNK = GenerationChunk("ab", (1, 2, 3))


class Measured:
    """The metrics of a worker that does nothing but what a test says."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.slots = Slots(4)
        self._registry = CollectorRegistry()
        models = ServedModel(engine or fake.FakeEngine(), "digest", "model")
        self._metrics = WorkerMetrics(self._registry, self.slots, models)

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"evalpool_worker_{name}", labels)

    def finished(self) -> dict[str, float]:
        """Generations that ended, by why."""
        ways = [reason.value for reason in FinishReason]
        counts = {way: self.value("requests_finished_total", finish_reason=way) for way in ways}
        return {way: count for way, count in counts.items() if count}

    def counted(self, *events: Event | Exception) -> AsyncGenerator[Event, None]:
        """These events of a generation as they are passed on."""

        async def told() -> AsyncIterator[Event]:
            for event in events:
                if isinstance(event, Exception):
                    raise event
                yield event

        return self._metrics.counted(told())


def end(completion_tokens: int = 4) -> GenerationEnd:
    """The end after 1 s queued, 2 s of prompt, 6 s of text."""
    return GenerationEnd(
        finish_reason=FinishReason.STOP,
        prompt_tokens=100,
        completion_tokens=completion_tokens,
        timings=GenerationTimings(queued=1.0, prefill=2.0, decode=6.0),
        shared_tokens=64,
    )


async def passed_on(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


# A generation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_tokens_total", 100),
        ("generation_tokens_total", 4),
        ("prefix_queried_tokens_total", 100),
        ("prefix_shared_tokens_total", 64),
        ("request_queue_seconds_sum", 1),
        ("request_prefill_seconds_sum", 2),
        ("time_to_first_token_seconds_sum", 3),
        ("request_decode_seconds_sum", 6),
        ("request_seconds_sum", 9),
        ("inter_token_seconds_sum", 2),
    ],
)
async def test_a_generation_is_passed_on_counted_and_timed(name: str, value: float) -> None:
    measured = Measured()
    assert await passed_on(measured.counted(CHUNK, end())) == [CHUNK, end()]
    assert measured.value(name) == value
    assert measured.finished() == {"stop": 1}


async def test_a_single_token_has_no_time_to_the_next() -> None:
    measured = Measured()
    await passed_on(measured.counted(end(completion_tokens=1)))
    assert measured.value("inter_token_seconds_count") == 0


async def test_a_generation_whose_caller_goes_is_cancelled_and_what_it_had_is_counted() -> None:
    measured = Measured()
    events = measured.counted(CHUNK, end())
    await anext(events)
    await events.aclose()
    assert measured.finished() == {"cancelled": 1}
    assert measured.value("generation_tokens_total") == 3
    assert measured.value("request_seconds_count") == 0


async def test_a_generation_whose_end_was_taken_is_not_cancelled() -> None:
    measured = Measured()
    events = measured.counted(end())
    await anext(events)
    await events.aclose()
    assert measured.finished() == {"stop": 1}


async def test_a_generation_that_the_engine_cannot_begin_is_an_error() -> None:
    measured = Measured()
    with pytest.raises(EngineError):
        await passed_on(measured.counted(EngineError("no memory")))
    assert measured.finished() == {"error": 1}


async def test_a_generation_that_is_refused_is_none() -> None:
    measured = Measured()
    with pytest.raises(InvalidParametersError):
        await passed_on(measured.counted(InvalidParametersError("seed", "seed must be a number.")))
    assert measured.finished() == {}


# What waits and runs


def test_a_request_waits_until_it_has_its_model() -> None:
    measured = Measured()
    with measured.slots.taken() as slot:
        assert measured.value("requests_waiting", cause="model") == 1
        assert measured.value("requests_running") == 0
        slot.has_model()
        slot.has_model()
        assert measured.value("requests_waiting", cause="model") == 0
        assert measured.value("requests_running") == 1
    with measured.slots.taken():
        pass
    assert measured.value("requests_waiting", cause="model") == 0
    assert measured.value("requests_running") == 0


def test_without_a_cache_of_its_own_nothing_of_it_is_used() -> None:
    measured = Measured()
    assert measured.value("kv_cells") == 0
    assert measured.value("kv_usage_ratio") == 0


# Over real gRPC


class Gate:
    """Holds the engine before each token and question but so many."""

    def __init__(self, free: int) -> None:
        self.open = asyncio.Event()
        self._free = free

    async def __call__(self) -> None:
        self._free -= 1
        if self._free < 0:
            await self.open.wait()


@asynccontextmanager
async def worker_with(
    step: Callable[[], Awaitable[None]],
    tmp_path: Path,
    model_store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[worker_pb2_grpc.WorkerServiceAsyncStub, Value]]:
    """A worker of four slots whose engine generates one text at a time, and its metrics."""
    engine = fake.FakeEngine
    monkeypatch.setattr(fake, "FakeEngine", lambda: engine(step, slots=1, context_tokens=1000))
    async with (
        running(SERVICE, tmp_path, models_dir=model_store.root, engine="fake", slots=4) as service,
        service.channel(service.operator) as channel,
    ):
        registry = service.running.runtime.metrics

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"evalpool_worker_{name}", labels)

        yield worker_pb2_grpc.WorkerServiceStub(channel), value


async def until_it_is(expected: float, value: Value, name: str, **labels: str) -> None:
    """Wait until a metric has a value."""

    async def read() -> float | None:
        return value(name, **labels)

    await until(read, lambda found: found == expected)


async def test_what_finds_no_room_in_the_engine_waits_and_what_runs_takes_cells(
    tmp_path: Path,
    model_store: ModelStore,
    smollm2_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(free=2)
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=smollm2_path.name), prompt="A" * 300
    )
    async with worker_with(gate, tmp_path, model_store, monkeypatch) as (stub, value):
        calls = [stub.Infer(request) for _ in range(3)]
        await until_it_is(2, value, "requests_waiting", cause="room")
        assert value("requests_running") == 1
        # The prompt's 100 tokens of the fake engine, and those that the gate let pass.
        await until_it_is(102, value, "kv_used_cells")
        assert (value("kv_cells"), value("kv_usage_ratio")) == (1000, 0.102)
        gate.open.set()
        for call in calls:
            assert [message async for message in call][-1].HasField("complete")
        await until_it_is(0, value, "requests_running")
        assert value("requests_waiting", cause="room") == value("kv_used_cells") == 0
        assert value("prefix_queried_tokens_total") == 300
        computed = value("computed_tokens_total")
        assert computed == 300 + (value("generation_tokens_total") or 0)


async def test_questions_wait_until_the_engine_takes_them(
    tmp_path: Path,
    model_store: ModelStore,
    smollm2_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(free=3)
    request = inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest=smollm2_path.name), questions=questions(10)
    )
    async with worker_with(gate, tmp_path, model_store, monkeypatch) as (stub, value):
        call = stub.ScoreChoices(request)
        await until_it_is(6, value, "questions_waiting")
        assert (value("questions_running"), value("requests_running")) == (1, 1)
        assert value("questions_total", outcome="scored") == 3
        gate.open.set()
        assert [message async for message in call][-1].HasField("complete")
        assert (value("questions_waiting"), value("questions_running")) == (0, 0)
        assert value("questions_total", outcome="scored") == 10


async def test_a_call_that_is_cancelled_ends_as_cancelled(
    tmp_path: Path,
    model_store: ModelStore,
    smollm2_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=smollm2_path.name), prompt="Once"
    )
    async with worker_with(Gate(free=2), tmp_path, model_store, monkeypatch) as (stub, value):
        call = stub.Infer(request)
        await call.read()
        call.cancel()
        await until_it_is(1, value, "requests_finished_total", finish_reason="cancelled")
        assert (value("requests_running"), value("kv_used_cells")) == (0, 0)
