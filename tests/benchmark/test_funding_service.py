"""Money comes in: every credit makes a pool, adds to one, or goes back once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from grpc import StatusCode

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from tests.benchmark.world import DATASET, World
from tests.refusals import refusal

DAY = timedelta(days=1)


def iso(world: World, after: timedelta) -> str:
    return (world.clock.now() + after).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_transfer_makes_a_pool_whose_id_is_the_transfers(world: World) -> None:
    funder = await world.funder(1_000)
    transfer = await world.transfer(
        funder,
        400,
        ("X-Dataset", DATASET),
        ("X-Allocation", "TopHeavy"),
        ("X-Title", "Everyday situations"),
        ("X-Minimum-Score", "1/3"),
        ("X-Tie-Rule", "split"),
        ("X-Max-Entries-Per-Day", "4"),
        ("X-Duration", "P10D"),
        ("X-Grace", "PT1H"),
        ("X-Evaluator", "letter"),
    )
    funding = await world.decided(funder, transfer)
    assert (funding.state, funding.pool) == (pb.FUNDING_STATE_CREATED, transfer)
    shown = await world.show(transfer)
    pool = shown.pool
    assert (pool.id, pool.funder, pool.funds) == (transfer, funder.address, "400")
    assert (pool.title, pool.allocation, pool.tie_rule) == (
        "Everyday situations",
        "TopHeavy",
        "split",
    )
    assert (pool.minimum_score, pool.max_entries_per_day, pool.evaluator) == ("1/3", 4, "letter")
    assert (pool.dataset, pool.question_count) == (DATASET, 10)
    assert pool.dataset_version == world.dataset.datasets[DATASET].version
    assert pool.end_time.ToDatetime() - pool.start_time.ToDatetime() == 10 * DAY
    assert pool.grace.ToTimedelta() == timedelta(hours=1)
    (contribution,) = shown.contributions
    assert (contribution.transfer, contribution.quantity) == (transfer, "400")
    assert await world.own_balance() == 400


async def test_a_pool_takes_its_datasets_title_evaluator_and_the_defaults(world: World) -> None:
    pool = (await world.show(await world.pool(await world.funder()))).pool
    assert pool.title == f"The dataset {DATASET}"
    assert (pool.evaluator, pool.tie_rule, pool.minimum_score) == ("loglikelihood", "earliest", "")
    assert pool.end_time.ToDatetime() - pool.start_time.ToDatetime() == 30 * DAY
    assert pool.grace.ToTimedelta() == DAY


async def test_a_pool_pins_the_version_that_the_dataset_had(world: World) -> None:
    funder = await world.funder()
    first = await world.pool(funder)
    world.dataset.add_dataset(DATASET, "owner", questions=20)
    second = await world.pool(funder)
    pools = [(await world.show(pool)).pool for pool in (first, second)]
    assert [pool.question_count for pool in pools] == [10, 20]
    assert pools[0].dataset_version != pools[1].dataset_version


async def test_top_ups_by_anybody_are_added(world: World) -> None:
    pool = await world.pool(await world.funder(), 100)
    other = await world.funder()
    top_up = await world.transfer(other, 10**2, ("X-Pool", pool))
    funding = await world.decided(other, top_up)
    assert (funding.state, funding.pool) == (pb.FUNDING_STATE_ADDED, pool)
    shown = await world.show(pool)
    assert shown.pool.funds == "200"
    assert [each.payer for each in shown.contributions][1] == other.address


@pytest.mark.parametrize(
    ("tags", "named", "code"),
    [
        ([], "X-Dataset", "INVALID_TAG"),
        ([("Note", "a present")], "X-Dataset", "INVALID_TAG"),
        ([("X-Dataset", "unknown"), ("X-Allocation", "Equal")], "X-Dataset", "DATASET_NOT_FOUND"),
        ([("X-Dataset", "empty"), ("X-Allocation", "Equal")], "X-Dataset", "DATASET_EMPTY"),
        (
            [("X-Dataset", DATASET), ("X-Allocation", "Lottery")],
            "X-Allocation",
            "UNKNOWN_ALLOCATION",
        ),
        (
            [("X-Dataset", DATASET), ("X-Allocation", "Equal"), ("X-Surprise", "1")],
            "X-Surprise",
            "INVALID_TAG",
        ),
        (
            [
                ("X-Dataset", DATASET),
                ("X-Allocation", "Equal"),
                ("X-Ends-At", "2020-01-01T00:00:00Z"),
            ],
            "X-Ends-At",
            "INVALID_TAG",
        ),
        (
            [
                ("X-Dataset", DATASET),
                ("X-Allocation", "Equal"),
                ("X-Ends-At", "2090-01-01T00:00:00Z"),
                ("X-Duration", "P1D"),
            ],
            "X-Ends-At",
            "INVALID_TAG",
        ),
        (
            [("X-Dataset", DATASET), ("X-Allocation", "Equal"), ("X-Evaluator", "judge")],
            "X-Evaluator",
            "EVALUATOR_MISMATCH",
        ),
        ([("X-Dataset", "orphan"), ("X-Allocation", "Equal")], "X-Dataset", "EVALUATOR_MISMATCH"),
        ([("X-Pool", "A" * 43)], "X-Pool", "POOL_NOT_FOUND"),
    ],
)
async def test_what_cannot_be_used_goes_back_once_with_its_reason(
    world: World, tags: list[tuple[str, str]], named: str, code: str
) -> None:
    world.dataset.add_dataset("empty", "owner", questions=0)
    world.dataset.add_dataset("orphan", "owner")
    world.dataset.datasets["orphan"].ClearField("evaluators")
    funder = await world.funder(1_000)
    transfer = await world.transfer(funder, 300, *tags)
    funding = await world.refunded(funder, transfer)
    assert (funding.state, funding.reason_code) == (pb.FUNDING_STATE_REFUNDED, code)
    assert funding.reason.startswith(f"{named}: ")
    await world.restart_benchmark()
    # What comes after it has been decided, so nothing is still on its way.
    pool = await world.pool(funder, 100)
    assert await world.balance(funder) == 900
    back = [each for each in await world.history(funder) if each.recipient == funder.address]
    refunds = [each for each in back if each.sender == world.benchmark.address]
    assert [each.id for each in refunds] == [funding.refund_transfer]
    assert {tag.name: tag.value for tag in refunds[0].tags} == {
        "X-Refund-Of": transfer,
        "X-Reason": funding.reason,
    }
    listed = await world.pools(funder).ListPools(pb.ListPoolsRequest())
    assert [(each.id, each.funds) for each in listed.pools] == [(pool, "100")]


async def test_only_the_payer_and_the_operator_see_why(world: World) -> None:
    funder = await world.funder()
    transfer = await world.transfer(funder, 5)
    told = await world.refunded(funder, transfer)
    request = pb.GetFundingRequest(transfer=transfer)
    stranger = (await world.pools(world.person()).GetFunding(request)).funding
    assert stranger.state == pb.FUNDING_STATE_REFUNDED
    assert (stranger.reason, stranger.reason_code, stranger.refund_transfer) == ("", "", "")
    operator = (await world.pools(world.operator).GetFunding(request)).funding
    assert operator == told


async def test_a_transfer_that_was_never_sent_here_is_not_found(world: World) -> None:
    funder = await world.funder()
    await refusal(
        world.pools(funder).GetFunding(pb.GetFundingRequest(transfer="A" * 43)),
        StatusCode.NOT_FOUND,
        "FUNDING_NOT_FOUND",
        "transfer",
    )


async def test_a_refund_is_no_funding_of_its_own(world: World) -> None:
    funder = await world.funder()
    told = await world.refunded(funder, await world.transfer(funder, 5))
    request = pb.GetFundingRequest(transfer=told.refund_transfer)
    await refusal(
        world.pools(funder).GetFunding(request),
        StatusCode.NOT_FOUND,
        "FUNDING_NOT_FOUND",
        "transfer",
    )


async def test_a_credit_waits_while_the_dataset_service_is_out_of_reach(world: World) -> None:
    world.dataset.set_reachable(False)
    funder = await world.funder()
    transfer = await world.transfer(funder, 5, ("X-Dataset", DATASET), ("X-Allocation", "Equal"))
    await world.dataset.asked_for_dataset.wait()
    pending = await world.pools(funder).GetFunding(pb.GetFundingRequest(transfer=transfer))
    assert pending.funding.state == pb.FUNDING_STATE_PENDING
    await world.restart_benchmark()
    world.dataset.set_reachable(True)
    assert (await world.decided(funder, transfer)).state == pb.FUNDING_STATE_CREATED


async def test_a_credit_that_waits_holds_up_no_other(world: World) -> None:
    world.dataset.add_dataset("strange", "owner")
    funder = await world.funder()
    open_pool = await world.pool(funder, 100)
    world.dataset.broken.add("strange")
    waiting = await world.transfer(funder, 5, ("X-Dataset", "strange"), ("X-Allocation", "Equal"))
    top_up = await world.transfer(funder, 10, ("X-Pool", open_pool))
    refused = await world.transfer(funder, 20)
    another = await world.pool(funder, 30)
    assert (await world.decided(funder, top_up)).state == pb.FUNDING_STATE_ADDED
    assert (await world.refunded(funder, refused)).state == pb.FUNDING_STATE_REFUNDED
    pending = await world.pools(funder).GetFunding(pb.GetFundingRequest(transfer=waiting))
    assert pending.funding.state == pb.FUNDING_STATE_PENDING
    # What was decided meanwhile stays decided after a restart, whatever has broken since.
    world.dataset.broken.add(DATASET)
    await world.restart_benchmark()
    later = await world.transfer(funder, 2, ("X-Pool", another))
    assert (await world.decided(funder, later)).state == pb.FUNDING_STATE_ADDED
    world.dataset.broken.clear()
    assert (await world.decided(funder, waiting)).state == pb.FUNDING_STATE_CREATED
    funds = {pool: (await world.show(pool)).pool.funds for pool in (open_pool, another, waiting)}
    assert funds == {open_pool: "110", another: "32", waiting: "5"}
    assert await world.balance(funder) == 1_000 - 147
    assert await world.own_balance() == 147


async def test_a_top_up_of_a_pool_that_is_on_its_way_waits_with_it(world: World) -> None:
    world.dataset.broken.add(DATASET)
    funder = await world.funder()
    pool = await world.transfer(funder, 5, ("X-Dataset", DATASET), ("X-Allocation", "Equal"))
    top_up = await world.transfer(funder, 7, ("X-Pool", pool))
    after = await world.transfer(funder, 1)
    await world.refunded(funder, after)
    pending = await world.pools(funder).GetFunding(pb.GetFundingRequest(transfer=top_up))
    assert pending.funding.state == pb.FUNDING_STATE_PENDING
    world.dataset.broken.clear()
    assert (await world.decided(funder, top_up)).state == pb.FUNDING_STATE_ADDED
    assert (await world.show(pool)).pool.funds == "12"


async def test_an_end_that_passed_while_a_credit_waited_is_judged_at_the_transfers_time(
    world: World,
) -> None:
    world.dataset.set_reachable(False)
    funder = await world.funder()
    transfer = await world.transfer(
        funder,
        5,
        ("X-Dataset", DATASET),
        ("X-Allocation", "Equal"),
        ("X-Ends-At", iso(world, DAY)),
    )
    await world.dataset.asked_for_dataset.wait()
    world.clock.advance(2 * DAY)
    world.dataset.set_reachable(True)
    assert (await world.decided(funder, transfer)).state == pb.FUNDING_STATE_CREATED
    shown = await world.settled(transfer)
    assert shown.pool.state == pb.POOL_STATE_RETURNED
    assert await world.balance(funder) == 1_000


async def test_credits_that_come_while_the_service_is_down_are_decided_later(
    world: World,
) -> None:
    funder = await world.funder()
    await world.stop_benchmark()
    transfers = [
        await world.transfer(funder, 10, ("X-Dataset", DATASET), ("X-Allocation", "Equal"))
        for _ in range(3)
    ]
    refused = await world.transfer(funder, 10)
    await world.start_benchmark()
    for transfer in transfers:
        assert (await world.decided(funder, transfer)).state == pb.FUNDING_STATE_CREATED
    assert (await world.refunded(funder, refused)).state == pb.FUNDING_STATE_REFUNDED
    assert await world.own_balance() == 30


async def test_minted_units_stay_in_view_of_the_operator_alone(world: World) -> None:
    minted = await world.mint(world.benchmark.address, 50)
    funding = await world.decided(world.operator, minted)
    assert funding.state == pb.FUNDING_STATE_KEPT
    assert funding.reason
    assert await world.own_balance() == 50
    await refusal(
        world.pools(world.person()).GetFunding(pb.GetFundingRequest(transfer=minted)),
        StatusCode.NOT_FOUND,
        "FUNDING_NOT_FOUND",
        "transfer",
    )


async def test_a_start_in_the_future_keeps_entries_out_until_then(world: World) -> None:
    funder = await world.funder()
    pool = await world.pool(funder, Starts_At=iso(world, DAY), Duration="P2D")
    assert (await world.show(pool)).pool.state == pb.POOL_STATE_SCHEDULED
    digest = world.dataset.add_model(1)
    await refusal(
        world.join(pool, digest, world.person()),
        StatusCode.FAILED_PRECONDITION,
        "POOL_NOT_STARTED",
        "pool",
    )
    world.clock.advance(DAY)
    await world.join(pool, digest, world.person())


async def test_pools_are_listed_newest_first_by_page_state_and_dataset(world: World) -> None:
    funder = await world.funder()
    world.dataset.add_dataset("other", "owner")
    made = [await world.pool(funder, dataset=dataset) for dataset in (DATASET, "other", DATASET)]
    stub = world.pools(world.person())
    request = pb.ListPoolsRequest(page_size=2)
    first = await stub.ListPools(request)
    assert [pool.id for pool in first.pools] == [made[2], made[1]]
    request.page_token = first.next_page_token
    second = await stub.ListPools(request)
    assert [pool.id for pool in second.pools] == [made[0]]
    assert second.next_page_token == ""
    others = await stub.ListPools(pb.ListPoolsRequest(dataset="other"))
    assert [pool.id for pool in others.pools] == [made[1]]
    closing = await stub.ListPools(pb.ListPoolsRequest(state=pb.POOL_STATE_CLOSING))
    assert list(closing.pools) == []
    await refusal(
        stub.ListPools(pb.ListPoolsRequest(dataset="other", page_token=first.next_page_token)),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
        "page_token",
    )
