"""Following an entry from the command line: failures on the way, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.client import Client
from evalpool.client.pools import watch_entry
from evalpool.dataset.v1 import dataset_pb2
from evalpool_benchmark.entry import entry_id
from tests.benchmark.world import World
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.waiting import until


async def new_pool(world: World) -> str:
    return await world.pool(await world.funder())


async def queued(world: World, pool: str, digest: str) -> None:
    """Wait until the entry has a run."""

    async def submitted() -> set[str]:
        return {request.subject for request in world.dataset.benchmarked}

    await until(submitted, lambda subjects: digest in subjects)
    await world.entry_in(world.person(), entry_id(pool, digest), pb.ENTRY_STATE_QUEUED)


async def fails(world: World, pool: str, digest: str, reason: str, code: str) -> None:
    """Have the entry's run fail, once there is one."""
    await queued(world, pool, digest)
    failed = dataset_pb2.RUN_STATE_FAILED
    await world.dataset.set_score(digest, failed, done=4, reason=reason, reason_code=code)
    await world.entry_in(world.person(), entry_id(pool, digest), pb.ENTRY_STATE_FAILED)


async def fails_and_mends(world: World, pool: str, digest: str, told: threading.Event) -> None:
    await fails(world, pool, digest, "A worker was lost.", "EVALUATION_FAILED")
    await asyncio.to_thread(told.wait)
    await world.dataset.complete(digest, 6)


def test_joining_with_wait_tells_of_a_failure_that_is_tried_again_and_ends_with_the_score(
    cli: Cli, world: World, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = background.do(new_pool(world))
    digest = world.dataset.add_model(1)
    told = threading.Event()

    async def watched(client: Client, entry: str) -> AsyncIterator[pb.Entry]:
        async for seen in watch_entry(client, entry):
            yield seen
            if seen.HasField("retry_time"):
                told.set()

    monkeypatch.setattr("evalpool.cli.commands.entries.watch_entry", watched)
    running = background.begin(fails_and_mends(world, pool, digest, told))

    outcome = cli("pool", "join", pool, digest, "--wait")

    running.result()
    assert outcome.status == 0, outcome.err
    assert "failed: A worker was lost; it is tried again at " in outcome.err
    assert "0.6000" in outcome.out


async def waits_for_a_worker(
    world: World,
    pool: str,
    digest: str,
    state: dataset_pb2.RunState.ValueType,
    told: list[threading.Event],
) -> None:
    await queued(world, pool, digest)
    for done, each in enumerate(told, start=1):
        await world.dataset.set_score(
            digest, state, done=done, reason="No worker is there.", reason_code="NO_WORKER"
        )
        await asyncio.to_thread(each.wait)
    await world.dataset.complete(digest, 6)


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING"])
def test_joining_with_wait_tells_once_what_the_entry_waits_for(
    cli: Cli, world: World, background: Background, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    pool = background.do(new_pool(world))
    digest = world.dataset.add_model(1)
    told = [threading.Event(), threading.Event()]

    async def watched(client: Client, entry: str) -> AsyncIterator[pb.Entry]:
        async for seen in watch_entry(client, entry):
            yield seen
            if seen.reason:
                told[seen.done - 1].set()

    monkeypatch.setattr("evalpool.cli.commands.entries.watch_entry", watched)
    waits = dataset_pb2.RunState.Value(f"RUN_STATE_{state}")
    running = background.begin(waits_for_a_worker(world, pool, digest, waits, told))

    outcome = cli("pool", "join", pool, digest, "--wait")

    running.result()
    assert outcome.status == 0, outcome.err
    assert outcome.err == f"{state.lower()}: No worker is there\n"
    assert "0.6000" in outcome.out


def test_joining_with_wait_fails_with_one_line_where_the_failure_is_the_subjects(
    cli: Cli, world: World, background: Background
) -> None:
    pool = background.do(new_pool(world))
    digest = world.dataset.add_model(1)
    broken = fails(world, pool, digest, "The file is no GGUF.", "INVALID_GGUF")
    running = background.begin(broken)

    outcome = cli("pool", "join", pool, digest, "--wait")

    running.result()
    assert "The file is no GGUF." in outcome.failure


def test_an_entry_that_is_tried_again_is_shown_with_the_time_and_is_no_failure_yet(
    cli: Cli, world: World, background: Background
) -> None:
    pool = background.do(new_pool(world))
    digest = world.dataset.add_model(1)
    assert cli("pool", "join", pool, digest).status == 0
    background.do(fails(world, pool, digest, "A worker was lost.", "EVALUATION_FAILED"))

    outcome = cli("pool", "entry", entry_id(pool, digest))

    assert outcome.status == 0, outcome.err
    assert "tried again (UTC)" in outcome.out
    assert "A worker was lost." in outcome.out
