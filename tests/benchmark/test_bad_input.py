"""Bad input over real gRPC: each gets its code and a sentence with the field; nothing changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from grpc import StatusCode

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from tests.benchmark.world import World
from tests.refusals import BAD_CREDENTIALS, refusal

DAY = timedelta(days=1)
NOWHERE = "A" * 43
UNKNOWN = "f" * 64


async def test_a_join_that_cannot_be_is_refused(world: World) -> None:
    pool = await world.pool(await world.funder(), Max_Entries_Per_Day="1")
    participant, another = world.person(), world.person()
    known, second = world.dataset.add_model(1), world.dataset.add_model(2)
    somebodys = world.dataset.add_model(3, owner=world.person().address)
    entry = await world.join(pool, known, participant, "mine")
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    before = world.everything()
    for call, code, reason, field in (
        (
            world.join(NOWHERE, known, another),
            StatusCode.NOT_FOUND,
            "POOL_NOT_FOUND",
            "pool",
        ),
        (
            world.join(pool, UNKNOWN, another),
            StatusCode.NOT_FOUND,
            "MODEL_NOT_FOUND",
            "subject",
        ),
        (
            world.join(pool, somebodys, another),
            StatusCode.PERMISSION_DENIED,
            "SUBJECT_NOT_OWNED",
            "subject",
        ),
        (
            world.join(pool, known, participant, "again"),
            StatusCode.ALREADY_EXISTS,
            "ALREADY_ENTERED",
            "subject",
        ),
        (
            world.join(pool, known, another),
            StatusCode.ALREADY_EXISTS,
            "ALREADY_ENTERED",
            "subject",
        ),
        (
            world.join(pool, second, participant, "mine"),
            StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            "request_id",
        ),
        (
            world.join(pool, second, participant),
            StatusCode.RESOURCE_EXHAUSTED,
            "ENTRY_LIMIT",
            "pool",
        ),
    ):
        error = await refusal(call, code, reason, field)
        assert (error.retry_after is not None) == (reason == "ENTRY_LIMIT")
    assert world.everything() == before


async def test_a_join_after_the_end_is_refused(world: World) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D")
    digest = world.dataset.add_model(1)
    (paid,) = await world.scored_entries(pool, [5])
    world.clock.advance(DAY)
    await world.allocate(pool)
    await world.settled(pool)
    before = world.everything(), await world.balance(paid)
    late = world.join(pool, digest, world.person())
    await refusal(late, StatusCode.FAILED_PRECONDITION, "POOL_CLOSED", "pool")
    assert (world.everything(), await world.balance(paid)) == before


async def test_an_entry_is_withdrawn_only_by_its_participant_and_before_the_end(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D")
    participant = world.person()
    entry = await world.join(pool, world.dataset.add_model(1), participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    request = pb.WithdrawEntryRequest(id=entry.id)
    before = world.everything()
    await refusal(
        world.pools(world.person()).WithdrawEntry(request),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "id",
    )
    world.clock.advance(DAY)
    await refusal(
        world.pools(participant).WithdrawEntry(request),
        StatusCode.FAILED_PRECONDITION,
        "ENTRY_STATE",
        "id",
    )
    assert world.everything() == before


async def test_entries_are_disqualified_only_by_the_operator_and_with_a_reason(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    entry = await world.join(pool, world.dataset.add_model(1), participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    before = world.everything()
    await refusal(
        world.pools(participant).DisqualifyEntry(
            pb.DisqualifyEntryRequest(id=entry.id, reason="It is a copy.")
        ),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "authorization",
    )
    for reason in ("", "x" * 501):
        await refusal(
            world.pools(world.operator).DisqualifyEntry(
                pb.DisqualifyEntryRequest(id=entry.id, reason=reason)
            ),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
            "reason",
        )
    assert world.everything() == before


async def test_fields_that_break_their_rule_are_named_all_at_once(world: World) -> None:
    stub = world.pools(world.person())
    before = world.everything()
    for call, fields in (
        (
            stub.JoinPool(pb.JoinPoolRequest(pool="x", subject="G" * 64, request_id="a b")),
            ("pool", "subject", "request_id"),
        ),
        (stub.GetPool(pb.GetPoolRequest(id="")), ("id",)),
        (stub.GetEntry(pb.GetEntryRequest(id="?")), ("id",)),
        (stub.GetFunding(pb.GetFundingRequest(transfer="1")), ("transfer",)),
        (stub.ListPools(pb.ListPoolsRequest(page_size=-1)), ("page_size",)),
        (
            stub.ListPools(
                pb.ListPoolsRequest(
                    page_size=1_001,
                    dataset="No Dataset",
                    state=99,  # type: ignore[arg-type]
                )
            ),
            ("page_size", "dataset", "state"),
        ),
        (stub.WithdrawEntry(pb.WithdrawEntryRequest(id="x")), ("id",)),
        (stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool="x")), ("pool",)),
        (stub.GetLeaderboard(pb.GetLeaderboardRequest(pool="x")), ("pool",)),
        (stub.AllocateRewards(pb.AllocateRewardsRequest(pool="x")), ("pool",)),
        (
            stub.WatchEntry(pb.WatchEntryRequest(id="x", after_revision=-1)).read(),
            ("id", "after_revision"),
        ),
        (
            stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool="x", after_revision=-1)).read(),
            ("pool", "after_revision"),
        ),
    ):
        await refusal(call, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", *fields)
    await refusal(
        stub.ListPools(pb.ListPoolsRequest(page_token="xx")),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
        "page_token",
    )
    assert world.everything() == before


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    stub, operator = world.pools(world.person()), world.pools(world.operator)
    before = world.everything()
    for call, reason, field in (
        (stub.GetPool(pb.GetPoolRequest(id=NOWHERE)), "POOL_NOT_FOUND", "id"),
        (stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=NOWHERE)), "POOL_NOT_FOUND", "pool"),
        (
            stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool=NOWHERE)),
            "POOL_NOT_FOUND",
            "pool",
        ),
        (stub.AllocateRewards(pb.AllocateRewardsRequest(pool=NOWHERE)), "POOL_NOT_FOUND", "pool"),
        (
            stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=NOWHERE)).read(),
            "POOL_NOT_FOUND",
            "pool",
        ),
        (stub.GetEntry(pb.GetEntryRequest(id=NOWHERE)), "ENTRY_NOT_FOUND", "id"),
        (stub.WithdrawEntry(pb.WithdrawEntryRequest(id=NOWHERE)), "ENTRY_NOT_FOUND", "id"),
        (stub.WatchEntry(pb.WatchEntryRequest(id=NOWHERE)).read(), "ENTRY_NOT_FOUND", "id"),
        (
            operator.DisqualifyEntry(pb.DisqualifyEntryRequest(id=NOWHERE, reason="a copy")),
            "ENTRY_NOT_FOUND",
            "id",
        ),
        (
            stub.GetFunding(pb.GetFundingRequest(transfer=NOWHERE)),
            "FUNDING_NOT_FOUND",
            "transfer",
        ),
    ):
        await refusal(call, StatusCode.NOT_FOUND, reason, field)
    assert world.everything() == before


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
async def test_credentials_that_prove_nothing_are_refused(world: World, name: str) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    reason, metadata = BAD_CREDENTIALS[name](participant, world.benchmark.address)
    stub = world.pools(None)
    before = world.everything()
    for call in (
        stub.JoinPool(
            pb.JoinPoolRequest(pool=pool, subject=digest, request_id="mine"), metadata=metadata
        ),
        stub.ListPools(pb.ListPoolsRequest(), metadata=metadata),
        stub.GetPool(pb.GetPoolRequest(id=pool), metadata=metadata),
        stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool=pool), metadata=metadata),
        stub.AllocateRewards(pb.AllocateRewardsRequest(), metadata=metadata),
        stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=pool), metadata=metadata).read(),
    ):
        await refusal(call, StatusCode.UNAUTHENTICATED, reason, "authorization")
    assert world.everything() == before
