"""The runner on both databases: chunks, leases and replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from evalpool_dataset.evaluation import start
from evalpool_dataset.inquiry import Asked
from evalpool_dataset.outcome import Outcome, Started
from evalpool_dataset.run import RunState
from evalpool_dataset.store import evaluations
from tests.dataset.runner_harness import (
    LEASE,
    START,
    Herd,
    Running,
    answered,
    ended,
)
from tests.dataset.stored_run import lapse_at


async def test_two_runners_on_one_database_never_evaluate_a_question_twice(
    running: Running,
) -> None:
    herds = [Herd(), Herd(), Herd()]
    for herd in herds:
        running.begin(running.runner(herd, questions=2))

    run = await running.until(ended)

    asked = [number for herd in herds for number in herd.asked]
    assert len(asked) == len(set(asked)) == 20
    assert (run.state, run.done, run.correct) == (RunState.COMPLETE, 20, 20)


async def test_a_lapsed_lease_is_taken_back_and_the_late_result_does_not_count(
    running: Running,
) -> None:
    go_on = asyncio.Event()
    held = asyncio.Event()

    async def late(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        held.set()
        await go_on.wait()
        for number, question in asked.items():
            yield answered(number, question, prediction=3)

    slow = running.runner(Herd(late), questions=20)
    running.begin(slow)
    await held.wait()
    await running.until(lambda run: run.state is RunState.RUNNING)
    running.clock.advance(LEASE + timedelta(seconds=1))
    other = running.runner(Herd(), questions=20)
    await other.expire()
    assert set(await running.states()) == {("pending", 1)}
    running.clock.advance(timedelta(seconds=10))
    running.begin(other)

    run = await running.until(ended)
    go_on.set()

    assert (run.state, run.done, run.correct) == (RunState.COMPLETE, 20, 20)
    running.stopping.set()
    await asyncio.gather(*running.tasks)
    after = await running.run()
    assert (after.done, after.correct) == (20, 20)
    assert set(await running.states()) == {("done", 2)}


async def test_a_lease_that_has_not_lapsed_is_left_alone(running: Running) -> None:
    await running.database.write(
        lambda c: evaluations.claim_some(c, "run", holder="h", now=START, lease=LEASE, limit=5)
    )
    running.clock.advance(LEASE - timedelta(seconds=1))

    await running.runner(Herd()).expire()

    assert [state for state, _ in await running.states()][:5] == ["leased"] * 5


async def test_a_service_that_alone_has_the_database_takes_all_leases_back_at_its_start(
    running: Running,
) -> None:
    def kill(connection: Connection) -> None:
        claims = evaluations.claim_some(
            connection, "run", holder="h", now=START, lease=LEASE, limit=5
        )
        for number, held in evaluations.lock(connection, [c.id for c in claims[:2]]).items():
            evaluations.save(connection, number, start(held, fence=held.fence))

    await running.database.write(kill)

    await running.runner(Herd()).abandon()

    assert await running.states() == [("pending", 1)] * 2 + [("pending", 0)] * 18


async def test_all_lapsed_leases_are_taken_back_however_many(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.runner.LEASES_A_READ", 3)
    await running.database.write(
        lambda c: evaluations.claim_some(c, "run", holder="h", now=START, lease=LEASE, limit=20)
    )
    running.clock.advance(LEASE)

    await running.runner(Herd()).expire()

    assert set(await running.states()) == {("pending", 0)}


async def test_leases_are_renewed_for_as_long_as_the_call_is_open(running: Running) -> None:
    go_on = asyncio.Event()
    lease = timedelta(milliseconds=300)

    async def slow(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        await go_on.wait()
        for number, question in asked.items():
            yield answered(number, question)

    running.begin(running.runner(Herd(slow), questions=20, lease=lease))
    await running.until(lambda run: run.state is RunState.RUNNING)
    for _ in range(3):
        running.clock.advance(lease * 2 / 3)
        while await running.leased_until() != running.clock.now() + lease:
            await running.changes.wait(running.changes.version, 0.01)

    await running.runner(Herd()).expire()
    go_on.set()

    assert (await running.until(ended)).state is RunState.COMPLETE
    assert set(await running.states()) == {("done", 1)}


async def test_a_chunk_whose_leases_are_lost_ends_and_the_drain_goes_on(running: Running) -> None:
    cancelled = asyncio.Event()

    async def never(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    herd = Herd(never)
    running.begin(running.runner(herd, questions=20, lease=timedelta(milliseconds=300)))
    await running.until(lambda run: run.state is RunState.RUNNING)
    # Another replica takes the leases back, though this one renews them.
    later = running.clock.now() + timedelta(hours=1)

    def take(connection: Connection) -> None:
        ids = [row for row, _ in evaluations.leased(connection, 100, by=later)]
        evaluations.take_back(connection, ids, lapse_at(later), "WORKER_LOST")

    await running.database.write(take)
    await cancelled.wait()
    running.clock.advance(timedelta(hours=2))
    running.changes.notify()

    run = await running.until(ended)
    assert (run.state, run.done) == (RunState.COMPLETE, 20)


async def test_a_chunk_that_breaks_leaves_the_others_alone(running: Running) -> None:
    async def broken(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        raise ArithmeticError("a bug")
        yield

    herd = Herd(broken)
    runner = running.runner(herd, questions=5)
    running.begin(runner)

    await running.until(lambda run: run.done == 15)
    run = await running.until_ended(runner)

    assert (run.state, run.done) == (RunState.COMPLETE, 20)
    assert herd.calls == 5


async def test_a_stop_gives_back_what_no_worker_had_begun(running: Running) -> None:
    waiting = asyncio.Event()

    async def some(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        first, second, *_ = asked
        yield Started((first, second))
        yield answered(first, asked[first])
        waiting.set()
        await asyncio.Event().wait()

    running.begin(running.runner(Herd(some), questions=20))
    await waiting.wait()
    await running.until(lambda run: run.done == 1)
    running.stopping.set()
    await asyncio.gather(*running.tasks)

    states = await running.states()
    assert states[:2] == [("done", 1), ("pending", 1)]
    assert set(states[2:]) == {("pending", 0)}
