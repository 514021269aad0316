"""What a herd survives, with real workers; some are processes that are killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool_worker import registration
from evalpool_worker.engine.fake import hashed_score
from tests.router.real_workers import Gate, Herd
from tests.router.router_harness import (
    MODEL,
    all_of,
    questions,
    results_of,
    running_router,
    scoring,
)
from tests.waiting import until

Responses: TypeAlias = Sequence[inference_pb2.ScoreChoicesResponse]
NewHerd: TypeAlias = Callable[..., AbstractAsyncContextManager[Herd]]

SMALL_PACKAGES = {"smallest_package": 1, "largest_package": 2}
"""A thousand questions are hundreds of them, so that nobody is through before a test acts."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process register again at once."""
    monkeypatch.setattr(registration, "RETRY_SECONDS", 0.05)


@pytest.fixture
def new_herd(
    tmp_path: Path, model_store: ModelStore, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> NewHerd:
    """Makes a herd, with settings of its router."""

    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Herd]:
        async with (
            running_router(tmp_path / "router", heartbeat_seconds=0.1, **settings) as router,
            AsyncExitStack() as stack,
        ):
            yield Herd(router, tmp_path, model_store.root, stack, monkeypatch)

    return make


@pytest.fixture
async def herd(new_herd: NewHerd) -> AsyncIterator[Herd]:
    async with new_herd() as made:
        yield made


def assert_each_counts_once(responses: Responses, count: int) -> None:
    """Every question was scored exactly once, by the engine's numbers, and the end says so."""
    results = results_of(list(responses))
    assert Counter(result.id for result in results) == Counter(f"q{n}" for n in range(count))
    asked = {question.id: question for question in questions(count)}
    for result in results:
        question = asked[result.id]
        assert [score.sum_logprob for score in result.scores] == [
            hashed_score(MODEL, question.prompt, choice) for choice in question.choices
        ]
    assert (responses[-1].complete.scored, responses[-1].complete.failed) == (count, 0)


def by(responses: Responses, address: str) -> Counter[int]:
    """How many results a worker gave, by its generation."""
    return Counter(
        result.provenance.generation
        for result in results_of(list(responses))
        if result.provenance.worker == address
    )


async def first_result(
    call: AsyncIterator[inference_pb2.ScoreChoicesResponse], address: str
) -> list[inference_pb2.ScoreChoicesResponse]:
    """Read on until a worker has answered something."""
    responses: list[inference_pb2.ScoreChoicesResponse] = []
    while not by(responses, address):
        responses.append(await anext(call))
    return responses


@pytest.mark.slow
async def test_what_a_killed_worker_was_at_is_done_by_another_and_what_it_had_answered_stands(
    new_herd: NewHerd,
) -> None:
    async with new_herd(**SMALL_PACKAGES) as herd:
        victim, heir = await herd.process("victim"), await herd.process("heir")
        await herd.drain(heir.address, True)
        call = aiter((await herd.dataset()).ScoreChoices(scoring(1000)))
        responses = await first_result(call, victim.address)
        victim.freeze()
        while not await herd.unfinished_at(victim.address):
            # It was caught between its last answer and the end of its stream.
            victim.thaw()
            responses.append(await anext(call))
            victim.freeze()
        await herd.drain(heir.address, False)

        async def read() -> None:
            responses.extend([response async for response in call])

        reading = asyncio.create_task(read())
        await herd.all_but_what_is_at(victim.address)
        assert not reading.done()
        await victim.kill()
        await reading
        assert_each_counts_once(responses, 1000)
        assert by(responses, victim.address)[1]
        assert by(responses, heir.address)[1] == 1000 - by(responses, victim.address)[1]


@pytest.mark.slow
async def test_a_killed_worker_that_starts_anew_at_its_endpoint_finishes_what_it_was_at(
    new_herd: NewHerd,
) -> None:
    async with new_herd(**SMALL_PACKAGES) as herd:
        worker = await herd.process("worker")
        call = aiter((await herd.dataset()).ScoreChoices(scoring(1000)))
        responses = await first_result(call, worker.address)
        endpoint = worker.endpoint
        await worker.kill()
        await herd.start(worker)
        assert worker.endpoint == endpoint
        responses += [response async for response in call]
        assert_each_counts_once(responses, 1000)
        assert set(by(responses, worker.address)) == {1, 2}
        assert (await herd.worker(worker.address)).endpoint == endpoint


async def test_a_worker_whose_engine_hangs_while_its_heart_beats_loses_its_work_and_comes_back(
    new_herd: NewHerd,
) -> None:
    async with new_herd(hung_seconds=2.0) as herd:
        stuck, well = Gate(free=30), Gate()
        well.opened.set()
        hung, other = await herd.in_this_process(stuck), await herd.in_this_process(well)
        await until(partial(herd.generation, other.address), bool)
        await herd.drain(other.address, True)
        stub = await herd.dataset()
        reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(200))))
        await stuck.reached.wait()
        await herd.drain(other.address, False)
        responses = await reading
        assert_each_counts_once(responses, 200)
        assert by(responses, hung.address) == {1: 30}
        assert by(responses, other.address) == {1: 170}
        # It registers again by itself. What was taken from it was cancelled: its slots are free.
        await until(partial(herd.generation, hung.address), lambda generation: generation > 1)
        stuck.opened.set()
        await herd.drain(other.address, True)
        again = await all_of(stub.ScoreChoices(scoring(50)))
        assert_each_counts_once(again, 50)
        assert by(again, hung.address).total() == 50
        assert min(by(again, hung.address)) > 1


async def test_of_two_workers_with_one_key_the_newer_keeps_the_lease_and_the_older_waits_for_it(
    herd: Herd,
) -> None:
    stuck, well = Gate(free=30), Gate()
    well.opened.set()
    key = await herd.in_this_process(stuck)
    stub = await herd.dataset()
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(200))))
    await stuck.reached.wait()
    await herd.in_this_process(well, identity=key)
    responses = await reading
    assert_each_counts_once(responses, 200)
    assert by(responses, key.address) == {1: 30, 2: 170}
    # The older one's heart beats on, and it asks for its place again and again.
    refused = partial(herd.ended, "RegisterWorker", "ABORTED")
    await until(refused, lambda times: times >= 3)
    assert await herd.generation(key.address) == 2
    stuck.opened.set()
    again = await all_of(stub.ScoreChoices(scoring(50)))
    assert_each_counts_once(again, 50)
    assert by(again, key.address) == {2: 50}
