from __future__ import annotations

from evalpool_router import store
from evalpool_router.membership import Candidate, Membership
from evalpool_router.scheduler import Kind
from tests.conftest import OpenDatabase


async def test_generations_grow_whatever_else_is_written(database: OpenDatabase) -> None:
    opened = await database("evalpool_router.migrations")
    assert await opened.write(lambda tx: store.next_generation(tx, "w")) == 1
    await opened.write(lambda tx: store.set_worker_kinds(tx, "w", frozenset()))
    await opened.write(lambda tx: store.set_worker_draining(tx, "w", True))
    assert await opened.write(lambda tx: store.next_generation(tx, "w")) == 2
    assert await opened.read(store.read_workers) == [store.WorkerRecord("w", frozenset(), True, 2)]


async def test_a_call_goes_before_the_settings_and_outlasts_a_restart(
    database: OpenDatabase,
) -> None:
    opened = await database("evalpool_router.migrations")
    await opened.write(lambda tx: store.next_generation(tx, "plain"))
    await opened.write(lambda tx: store.set_worker_kinds(tx, "out", frozenset()))
    await opened.write(lambda tx: store.set_worker_kinds(tx, "new", {Kind.CHAT, Kind.JUDGE}))
    membership = Membership(["plain", "out"], await opened.read(store.read_workers))
    assert membership.kinds("plain") == frozenset(Kind)
    assert not membership.is_admitted("out")
    assert membership.kinds("new") == {Kind.CHAT, Kind.JUDGE}
    assert not membership.is_admitted("stranger")


def test_a_worker_gets_the_work_that_it_offers_and_is_admitted_for() -> None:
    membership = Membership([], [])
    membership.admit("w", frozenset({Kind.EVALUATE, Kind.CHAT}))
    offered = frozenset({Kind.CHAT, Kind.JUDGE})
    candidate = Candidate("w", "127.0.0.1:1", offered, 1, 0, "b", frozenset(), "i")
    assert membership.admitted_kinds(candidate) == {Kind.CHAT}


async def test_no_request_has_offered_more_than_the_price_yet(database: OpenDatabase) -> None:
    opened = await database("evalpool_router.migrations")
    assert await opened.read(store.read_last_multiplier) == 1
