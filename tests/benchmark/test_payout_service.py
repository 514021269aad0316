"""The end of a pool: leaderboard, freeze, plan, payout; once, whatever happens."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from grpc import StatusCode
from sqlalchemy import create_engine, text

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from evalpool.token.v1 import token_pb2
from evalpool_benchmark.watches import LIVE_EVERY
from tests.benchmark.world import DATASET, DATASET_OWNER, World, running_world
from tests.refusals import refusal
from tests.waiting import until

DAY = timedelta(days=1)
END = 31 * DAY


async def supply(world: World) -> int:
    stub = world.ledger(world.token.operator)
    return int((await stub.GetTotalSupply(token_pb2.GetTotalSupplyRequest())).total_supply)


async def test_a_pools_life_from_funding_to_payout(tmp_path: Path, database_url: str) -> None:
    async with running_world(tmp_path, database_url) as world:
        funder, helper = await world.funder(1_000), await world.funder(500)
        pool = await world.pool(funder, 70)
        await world.decided(helper, await world.transfer(helper, 30, ("X-Pool", pool)))
        people = await world.scored_entries(pool, [9, 5, 9, 2])
        board = (
            await world.pools(helper).UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool=pool))
        ).leaderboard
        assert (board.revision, board.final, board.funds) == (1, False, "100")
        assert [(row.rank, row.correct, row.reward) for row in board.rows] == [
            (1, 9, "40"),
            (1, 9, "30"),
            (3, 5, "20"),
            (4, 2, "10"),
        ]
        assert [row.participant for row in board.rows] == [
            people[place].address for place in (0, 2, 1, 3)
        ]
        assert list(board.rows[0].tied_with) == [board.rows[1].entry]
        assert board.rows[0].score == 0.9
        assert 0.59 < board.rows[0].score_low < 0.9 < board.rows[0].score_high < 0.99
        projected = await world.show(pool)
        assert not projected.payouts_final
        assert [payout.quantity for payout in projected.payouts] == ["40", "30", "20", "10"]

        world.clock.advance(END)
        (ended,) = await world.allocate(pool)
        assert ended.state == pb.POOL_STATE_PAID
        assert ended.HasField("settle_time")
        for _ in range(3):
            (again,) = await world.allocate(pool)
            assert again == ended
        assert await world.allocate() == []
        assert [await world.balance(person) for person in people] == [40, 20, 30, 10]
        assert await world.own_balance() == 0
        assert (await world.balance(funder), await world.balance(helper)) == (930, 470)
        assert await supply(world) == 1_500

        shown = await world.show(pool)
        assert shown.payouts_final
        assert sum(int(payout.quantity) for payout in shown.payouts) == 100
        assert [payout.rank for payout in shown.payouts] == [1, 1, 3, 4]
        (received,) = await world.history(people[0])
        assert received.id == shown.payouts[0].transfer
        assert {tag.name: tag.value for tag in received.tags} == {
            "X-Pool": pool,
            "X-Entry": board.rows[0].entry,
            "X-Rank": "1",
        }
        final = (
            await world.pools(helper).GetLeaderboard(pb.GetLeaderboardRequest(pool=pool, live=True))
        ).leaderboard
        assert (final.final, final.revision) == (True, 2)
        assert [row.reward for row in final.rows] == ["40", "30", "20", "10"]


async def test_nothing_can_be_allocated_before_the_end(world: World) -> None:
    pool = await world.pool(await world.funder())
    await refusal(world.allocate(pool), StatusCode.FAILED_PRECONDITION, "POOL_NOT_ENDED", "pool")
    assert await world.allocate() == []


async def test_a_pool_settles_by_itself_at_its_end(world: World) -> None:
    funder = await world.funder()
    pool = await world.pool(funder, Duration="P1D")
    await world.scored_entries(pool, [5])
    world.clock.advance(DAY)
    # The start looks at once at what has ended; so does the timer to the next end.
    await world.restart_benchmark()
    assert (await world.settled(pool)).pool.state == pb.POOL_STATE_PAID


async def test_without_an_eligible_entry_every_contribution_goes_back(world: World) -> None:
    funder, helper = await world.funder(1_000), await world.funder(1_000)
    pool = await world.pool(funder, 600, Minimum_Score="1/2")
    for quantity in (50, 70):
        await world.decided(helper, await world.transfer(helper, quantity, ("X-Pool", pool)))
    await world.scored_entries(pool, [5, 1])
    world.clock.advance(END)
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_RETURNED
    assert (await world.balance(funder), await world.balance(helper)) == (1_000, 1_000)
    shown = await world.show(pool)
    assert [(each.contribution, each.quantity) for each in shown.payouts] == [
        (each.transfer, each.quantity) for each in shown.contributions
    ]
    back = await world.history(helper)
    tags = {tag.name: tag.value for tag in back[0].tags}
    assert tags["X-Refund-Of"] == shown.contributions[2].transfer
    assert tags["X-Reason"]


async def test_prize_free_entries_rank_and_take_nothing(world: World) -> None:
    pool = await world.pool(await world.funder())
    people = await world.scored_entries(pool, [4])
    owner = world.as_person(DATASET_OWNER)
    service = world.as_person(world.benchmark.running.runtime.identity)
    for number, signer, correct in ((11, world.operator, 9), (12, owner, 8), (13, service, 7)):
        digest = world.dataset.add_model(number)
        entry = await world.join(pool, digest, signer)
        assert entry.prize_free
        await world.entry_in(signer, entry.id, pb.ENTRY_STATE_QUEUED)
        await world.dataset.complete(digest, correct)
        await world.entry_in(signer, entry.id, pb.ENTRY_STATE_SCORED)
    world.clock.advance(END)
    await world.allocate(pool)
    shown = await world.show(pool)
    assert [(each.rank, each.recipient, each.quantity) for each in shown.payouts] == [
        (4, people[0].address, "100")
    ]


async def test_a_stop_between_the_plan_and_the_payment_pays_once(world: World) -> None:
    pool = await world.pool(await world.funder())
    people = await world.scored_entries(pool, [7, 3])
    world.clock.advance(END)
    await world.stop_token()
    (paying,) = await world.allocate(pool)
    assert paying.state == pb.POOL_STATE_PAYING
    shown = await world.show(pool)
    assert shown.payouts_final
    assert [payout.transfer for payout in shown.payouts] == ["", ""]
    await refusal(
        world.pools(world.operator).DisqualifyEntry(
            pb.DisqualifyEntryRequest(id=shown.payouts[0].entry, reason="too late")
        ),
        StatusCode.FAILED_PRECONDITION,
        "ENTRY_STATE",
        "id",
    )
    await world.stop_benchmark()
    await world.start_token()
    await world.start_benchmark()
    settled = await world.settled(pool)
    assert all(payout.transfer for payout in settled.payouts)
    assert [await world.balance(person) for person in people] == [67, 33]
    assert await world.own_balance() == 0


async def test_a_payout_larger_than_the_ledgers_own_limit_goes_in_batches(world: World) -> None:
    pool = await world.pool(await world.funder())
    people = await world.scored_entries(pool, [9, 5, 2])
    await world.stop_benchmark()
    await world.stop_token()
    await world.start_token(max_batch_transfers=2)
    await world.start_benchmark()
    world.clock.advance(END)
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_PAID
    assert [await world.balance(person) for person in people] == [50, 33, 17]
    sent = await world.history(world.benchmark.running.runtime.identity)
    assert [(each.recipient, each.request_id) for each in reversed(sent[:3])] == [
        (people[0].address, f"payout:{pool}"),
        (people[1].address, f"payout:{pool}"),
        (people[2].address, f"payout:{pool}:1"),
    ]


async def test_a_stop_between_the_payment_and_its_receipts_pays_once(
    world: World, tmp_path: Path
) -> None:
    pool = await world.pool(await world.funder())
    people = await world.scored_entries(pool, [7, 3])
    world.clock.advance(END)
    await world.allocate(pool)
    before = await world.settled(pool)
    await world.stop_benchmark()
    # As a kill right after the ledger's commit leaves it: paid, and not known to be.
    engine = create_engine(f"sqlite:///{tmp_path / 'benchmark' / 'benchmark.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE payouts SET transfer = ''"))
        connection.execute(text("UPDATE pools SET phase = 'paying', settle_time = NULL"))
    engine.dispose()
    await world.start_benchmark()
    after = await world.settled(pool)
    assert list(after.payouts) == list(before.payouts)
    assert [await world.balance(person) for person in people] == [67, 33]


async def test_a_stop_between_a_refund_and_its_receipt_refunds_once(
    world: World, tmp_path: Path
) -> None:
    funder = await world.funder(100)
    transfer = await world.transfer(funder, 40)
    first = await world.refunded(funder, transfer)
    await world.stop_benchmark()
    engine = create_engine(f"sqlite:///{tmp_path / 'benchmark' / 'benchmark.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE fundings SET refund_transfer = NULL"))
    engine.dispose()
    await world.start_benchmark()
    assert await world.refunded(funder, transfer) == first
    assert await world.balance(funder) == 100


async def test_snapshots_are_watched_from_a_cursor_until_the_pool_is_settled(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    stub = world.pools(world.person())
    update = pb.UpdateLeaderboardRequest(pool=pool)
    first = (await stub.UpdateLeaderboard(update)).leaderboard
    same = (await stub.UpdateLeaderboard(update)).leaderboard
    assert same == first, "nothing has changed"
    (person,) = await world.scored_entries(pool, [6])
    second = (await stub.UpdateLeaderboard(update)).leaderboard
    assert (first.revision, second.revision) == (1, 2)
    newest = (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))).leaderboard
    assert newest == second
    live = (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool, live=True))).leaderboard
    assert (live.revision, list(live.rows)) == (0, list(second.rows))
    stream = stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=pool, after_revision=1))
    seen = []
    async for message in stream:
        seen.append(message.leaderboard.revision)
        if not message.leaderboard.final:
            world.clock.advance(END)
            await world.allocate(pool)
    assert seen == [2, 3]
    from_now = stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=pool))
    assert [each.leaderboard.revision async for each in from_now] == [3]
    assert await world.balance(person) == 100


async def test_a_watched_leaderboard_is_live_between_snapshots(world: World) -> None:
    funder = await world.funder()
    pool = await world.pool(funder)
    stub = world.pools(world.person())
    person, digest = world.person(), world.dataset.add_model(1)
    states: list[tuple[int, list[tuple[str, int]]]] = []
    async for message in stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=pool)):
        board = message.leaderboard
        rows = [(pb.EntryState.Name(row.state), row.done) for row in board.rows]
        states.append((board.revision, rows))
        if not rows:
            entry = await world.join(pool, digest, person)
            await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
            # However much changes within two seconds, it is one board.
            await world.decided(funder, await world.transfer(funder, 5, ("X-Pool", pool)))
            await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_RUNNING, done=4)
            await world.entry_in(person, entry.id, pb.ENTRY_STATE_RUNNING)
            world.clock.advance(LIVE_EVERY)
        elif rows == [("ENTRY_STATE_RUNNING", 4)]:
            await world.dataset.complete(digest, 9)
            await world.entry_in(person, entry.id, pb.ENTRY_STATE_SCORED)
            world.clock.advance(LIVE_EVERY)
        elif not board.final:
            world.clock.advance(END)
            await world.allocate(pool)
    assert states == [
        (0, []),
        (0, [("ENTRY_STATE_RUNNING", 4)]),
        (0, [("ENTRY_STATE_SCORED", 10)]),
        (1, [("ENTRY_STATE_SCORED", 10)]),
    ]


async def test_several_pools_on_one_dataset_are_paid_side_by_side(world: World) -> None:
    funder = await world.funder()
    one = await world.pool(funder, 100)
    two = await world.pool(funder, 50, allocation="WinnerTakesAll")
    (first,) = await world.scored_entries(one, [5])
    second = world.person()
    entry = await world.join(two, f"{1:064x}", second)
    await world.entry_in(second, entry.id, pb.ENTRY_STATE_SCORED)
    world.clock.advance(END)
    ended = await world.allocate()
    assert {pool.id: pool.state for pool in ended} == {
        one: pb.POOL_STATE_PAID,
        two: pb.POOL_STATE_PAID,
    }
    assert (await world.balance(first), await world.balance(second)) == (100, 50)
    assert DATASET in {pool.dataset for pool in ended}


async def test_replicas_on_one_database_settle_everything_once(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with running_world(tmp_path, postgresql_url) as world:
        funder = await world.funder(1_000)
        async with world.replica() as replica:
            pools = [await world.pool(funder, 100) for _ in range(4)]
            refused = await world.transfer(funder, 50)
            people = []
            for number, pool in enumerate(pools, start=1):
                person = world.person()
                digest = world.dataset.add_model(number)
                # Joined at one replica, watched at the other.
                entry = await world.join(pool, digest, person, at=replica)
                await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
                await world.dataset.complete(digest, number)
                await world.entry_in(person, entry.id, pb.ENTRY_STATE_SCORED)
                people.append(person)
            world.clock.advance(END)
            await asyncio.gather(
                *(world.allocate(at=at) for at in (replica, world.benchmark) for _ in range(3))
            )
            for pool in pools:
                assert (await world.settled(pool)).pool.state == pb.POOL_STATE_PAID
            await world.refunded(funder, refused)
        assert [await world.balance(person) for person in people] == [100] * 4
        assert await world.balance(funder) == 600
        assert await world.own_balance() == 0


async def test_a_replica_takes_over_from_one_that_was_lost(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with running_world(tmp_path, postgresql_url) as world:
        funder = await world.funder(1_000)
        async with world.replica() as replica:
            await world.pool(funder, 100)
            await world.stop_benchmark()
            transfer = await world.transfer(funder, 50)
            stub = world.pools(funder, replica)

            async def get() -> pb.Funding:
                request = pb.GetFundingRequest(transfer=transfer)
                return (await stub.GetFunding(request)).funding

            await until(get, lambda funding: bool(funding.refund_transfer))
        assert await world.balance(funder) == 900
