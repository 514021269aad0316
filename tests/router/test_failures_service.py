"""What a herd survives, over sockets: workers that hang, lag, lie, start anew or are cut off."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from grpc import aio

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from tests.router.cut_line import CutLine
from tests.router.router_harness import (
    RouterHarness,
    all_of,
    assert_complete,
    error_of,
    idle,
    infer,
    results_of,
    running_router,
    scoring,
    someone,
    text_of,
)
from tests.router.worker_double import WorkerDouble
from tests.waiting import until

Result = inference_pb2.QuestionResult
PACKAGES = 2
LARGEST_PACKAGE = 64


@asynccontextmanager
async def beating(
    stub: router_pb2_grpc.RouterServiceAsyncStub, worker: WorkerDouble
) -> AsyncIterator[asyncio.Task[aio.AioRpcError]]:
    """Let a worker's heart beat; the task ends with the refusal, should the lease be lost."""

    async def beat() -> aio.AioRpcError:
        request = router_pb2.HeartbeatRequest(generation=worker.generation, computed_tokens=7)
        try:
            while True:
                await stub.Heartbeat(request)
                await asyncio.sleep(0.05)
        except aio.AioRpcError as error:
            return error

    task = asyncio.create_task(beat())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def by_worker(responses: list[inference_pb2.ScoreChoicesResponse]) -> Counter[str]:
    return Counter(result.provenance.worker for result in results_of(responses))


async def discarded(router: RouterHarness) -> float:
    """Results that did not count so far."""
    name = "evalpool_router_results_discarded_total"
    return router.service.running.runtime.metrics.get_sample_value(name) or 0.0


# Hung


async def test_a_worker_that_hangs_while_its_heart_beats_loses_its_work_to_another(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, hung_seconds=1.0) as router:
        hung = await router.worker()
        hung.open.clear()
        hung.free = 10
        stub = await router.stub(router.dataset)
        reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(100))))
        await hung.reached.wait()
        async with beating(await router.stub(hung.identity), hung) as heart:
            refusal = await heart
        assert error_of(refusal).reason == "LEASE_LOST"
        await hung.cancelled.wait()
        other = await router.worker()
        responses = await reading
        assert_complete(responses, 100)
        assert by_worker(responses)[other.address] == 100 - by_worker(responses)[hung.address]
        assert 10 <= by_worker(responses)[hung.address] <= 10 * PACKAGES


async def test_a_worker_that_hung_may_come_back_under_the_next_generation(tmp_path: Path) -> None:
    async with running_router(tmp_path, hung_seconds=0.5) as router:
        hung = await router.worker()
        hung.open.clear()
        reading = asyncio.create_task(text_of(await someone(router), infer()))
        stub = await router.stub(hung.identity)
        async with beating(stub, hung) as heart:
            await heart
        assert not reading.done()
        hung.open.set()
        assert (await hung.register(stub)).generation == 2
        assert await reading == "Paris."


# Slow


async def test_a_slow_worker_holds_up_no_more_than_what_it_was_given(router: RouterHarness) -> None:
    slow = await router.worker()
    slow.open.clear()
    stub = await router.stub(router.dataset)
    call = stub.ScoreChoices(scoring(600))
    await slow.reached.wait()
    fast = await router.worker()
    # All but what is at the slow one comes while it has not answered once.
    responses = []
    held = sum(len(request.questions) for request in slow.scored)
    assert 0 < held <= PACKAGES * LARGEST_PACKAGE
    async for response in call:
        responses.append(response)
        if len(results_of(responses)) == 600 - held:
            break
    assert by_worker(responses) == {fast.address: 600 - held}
    slow.open.set()
    responses += [response async for response in call]
    assert_complete(responses, 600)
    assert by_worker(responses)[slow.address] == held


# Garbage


Garbling: TypeAlias = Callable[[Result], list[Result]]


def _twice() -> Garbling:
    return lambda result: [result, result]


def _and_once_more_with_the_next() -> Garbling:
    before: list[Result] = []

    def garble(result: Result) -> list[Result]:
        told = [*before, result]
        before[:] = [result]
        return told

    return garble


def _after_one_never_asked_for() -> Garbling:
    def garble(result: Result) -> list[Result]:
        other = Result()
        other.CopyFrom(result)
        other.id = "q999"
        other.scores[0].sum_logprob -= 1.0
        return [other, result]

    return garble


def _changed(change: Callable[[Result], object]) -> Garbling:
    def garble(result: Result) -> list[Result]:
        change(result)
        return [result]

    return garble


@pytest.mark.parametrize(
    ("garbling", "surplus"),
    [(_twice, 40), (_and_once_more_with_the_next, 39), (_after_one_never_asked_for, 40)],
)
async def test_what_comes_twice_or_was_never_asked_for_is_counted_once_or_not_at_all(
    router: RouterHarness, garbling: Callable[[], Garbling], surplus: int
) -> None:
    worker = await router.worker()
    worker.garble = garbling()
    stub = await router.stub(router.dataset)
    assert_complete(await all_of(stub.ScoreChoices(scoring(40))), 40)
    assert await discarded(router) == surplus
    totals = await idle(router)
    assert (totals.completed, totals.failed, totals.queued) == (40, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda result: setattr(result, "id", "q999"), id="wrong id"),
        pytest.param(lambda result: setattr(result, "id", ""), id="no id"),
        pytest.param(
            lambda result: setattr(result.scores[1], "sum_logprob", math.nan), id="not a number"
        ),
        pytest.param(
            lambda result: setattr(result.scores[1], "sum_logprob", -math.inf), id="infinite"
        ),
        pytest.param(lambda result: result.scores.pop(), id="too few scores"),
        pytest.param(lambda result: result.scores.add(sum_logprob=-1.0), id="too many scores"),
        pytest.param(
            lambda result: setattr(result.usage, "computed_tokens", -1), id="negative tokens"
        ),
        pytest.param(
            lambda result: setattr(result.usage, "prompt_tokens", 2**31 - 1), id="endless tokens"
        ),
        pytest.param(
            lambda result: setattr(result.provenance, "model_digest", "0" * 64), id="wrong digest"
        ),
    ],
)
async def test_an_answer_that_is_garbage_is_discarded_and_given_by_another_worker(
    router: RouterHarness, change: Callable[[Result], object]
) -> None:
    liar = await router.worker()
    liar.garble = _changed(change)
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(20))))
    await liar.called.wait()
    honest = await router.worker()
    responses = await reading
    assert_complete(responses, 20)
    assert by_worker(responses) == {honest.address: 20}
    assert await discarded(router) >= 10
    await idle(router)


@pytest.mark.parametrize("tokens", [-1, 2**31 - 1])
async def test_a_text_whose_counts_are_garbage_does_not_end_well_and_frees_its_slot(
    router: RouterHarness, tokens: int
) -> None:
    worker = await router.worker()
    worker.computed_tokens = tokens
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(await someone(router), infer())
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_of(refusal.value).reason == "WORKER_LOST"
    assert await discarded(router) == 1
    await idle(router)


# Started anew, and registered twice


async def test_a_worker_that_starts_anew_at_its_endpoint_goes_on_under_the_next_generation(
    router: RouterHarness,
) -> None:
    before = await router.worker()
    before.open.clear()
    before.free = 10
    stub = await router.stub(router.dataset)
    call = stub.ScoreChoices(scoring(100))
    await before.reached.wait()
    await before.kill()
    async with WorkerDouble.new(before.identity, before.endpoint) as after:
        assert after.endpoint == before.endpoint
        # As a worker that was stopped for a newer version of its engine.
        after.engine_build = "double 2"
        await after.register(await router.stub(after.identity), instance="second")
        assert after.generation == before.generation + 1
        responses = [response async for response in call]
    assert_complete(responses, 100)
    origins = Counter(
        (result.provenance.generation, result.provenance.engine_build)
        for result in results_of(responses)
    )
    assert set(origins) == {(1, "double 1"), (2, "double 2")}
    assert origins[1, "double 1"] <= 10 * PACKAGES
    assert await discarded(router) == 0


async def test_a_registration_that_is_repeated_costs_nothing_that_is_under_way(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(20))))
    await worker.reached.wait()
    packages = len(worker.scored)
    await worker.register(await router.stub(worker.identity))
    assert worker.generation == 1
    worker.open.set()
    assert_complete(await reading, 20)
    assert len(worker.scored) <= max(packages, PACKAGES)
    assert not worker.cancelled.is_set()


async def test_of_two_workers_with_one_key_the_newer_has_the_lease_and_only_its_answers_count(
    router: RouterHarness,
) -> None:
    older = await router.worker()
    older.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(20))))
    await older.reached.wait()
    workers = await router.stub(older.identity)
    async with WorkerDouble.new(older.identity) as newer:
        await newer.register(workers, instance="second")
        await older.cancelled.wait()
        older.open.set()
        responses = await reading
        assert_complete(responses, 20)
        assert {result.provenance.generation for result in results_of(responses)} == {2}
        with pytest.raises(aio.AioRpcError) as refusal:
            await workers.Heartbeat(router_pb2.HeartbeatRequest(generation=older.generation))
        assert error_of(refusal.value).reason == "LEASE_LOST"
        listed = await (await router.operator()).ListWorkers(router_pb2.ListWorkersRequest())
        assert [(w.address, w.endpoint) for w in listed.workers] == [
            (older.address, newer.endpoint)
        ]


# Cut off


def told_of(question: inference_pb2.ChoiceQuestion) -> bytes:
    """How a result names its question on the line: field 1, a text."""
    return b"\n" + bytes([len(question.id)]) + question.id.encode()


async def test_a_worker_cut_off_from_the_network_is_lost_and_its_late_answers_are_discarded(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, lease_seconds=1.0, heartbeat_seconds=0.1) as router:
        far, near = await router.unregistered_worker(), await router.unregistered_worker()
        for worker in (far, near):
            worker.open.clear()
        far.free = 5
        at_far, at_near = await router.stub(far.identity), await router.stub(near.identity)
        stub, operator = await router.stub(router.dataset), await router.operator()
        async with CutLine(far.endpoint) as line:
            await far.register(at_far, endpoint=line.endpoint)
            async with beating(at_far, far):
                call = stub.ScoreChoices(scoring(100))
                responses = []
                async for response in call:
                    responses.append(response)
                    if results_of(responses):
                        break
                await far.reached.wait()
                line.cut()
            # Its heart is not heard either, so that its lease lapses; it answers all the same.
            far.open.set()
            late = [question for request in far.scored for question in request.questions[5:]]
            await line.holding_back(*map(told_of, late))
            await until(
                lambda: operator.ListWorkers(router_pb2.ListWorkersRequest()),
                lambda listed: not listed.workers,
            )
            # Its answers come while another worker has its questions.
            await near.register(at_near)
            async with beating(at_near, near):
                await near.reached.wait()
                taken_over = {q.id for request in near.scored for q in request.questions}
                assert taken_over & {question.id for question in late}
                line.mend()
                await line.let_through()
                near.open.set()
                responses += [response async for response in call]
                assert_complete(responses, 100)
                by_near = {
                    r.id for r in results_of(responses) if r.provenance.worker == near.address
                }
                assert by_near >= {question.id for question in late}
                with pytest.raises(aio.AioRpcError) as refusal:
                    await at_far.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
                assert error_of(refusal.value).reason == "LEASE_LOST"
                # It is back, and works on.
                await far.register(at_far, endpoint=line.endpoint)
                assert far.generation == 2
                drain = router_pb2.DrainWorkerRequest(worker=near.address, drain=True)
                await operator.DrainWorker(drain)
                async with beating(at_far, far):
                    again = await all_of(stub.ScoreChoices(scoring(30)))
                assert_complete(again, 30)
                assert by_worker(again) == {far.address: 30}
