"""`evalpool pool`: funded benchmarks."""

from __future__ import annotations

from typing import Annotated

import typer

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.leaderboard import print_leaderboard
from evalpool.cli.options import DEFAULT_WALLET, Output, RequestId, Wallet, client_of
from evalpool.cli.output import (
    Format,
    console,
    enum_text,
    moment,
    print_fields,
    print_json,
    print_json_line,
    print_table,
    short,
)
from evalpool.cli.subjects import subjects_text
from evalpool.client.pools import PoolTerms, fund, watch_leaderboard
from evalpool.common.v1.service_info_pb2 import Tag

group = typer.Typer(help="Funded benchmarks.", no_args_is_help=True)
app.add_typer(group, name="pool")

PoolId = Annotated[str, typer.Argument(help="The pool's id.")]


@group.command()
def create(
    dataset: Annotated[str, typer.Argument(help="The dataset's id.")],
    quantity: Annotated[str, typer.Argument(help="Units to put in.")],
    allocation: Annotated[
        str,
        typer.Option(
            help="ArithmeticDecrease, WinnerTakesAll, Proportional, Equal or TopHeavy.",
        ),
    ] = "ArithmeticDecrease",
    title: Annotated[str, typer.Option(help="For people.")] = "",
    starts_at: Annotated[str, typer.Option(help="RFC 3339, UTC. Default: at once.")] = "",
    ends_at: Annotated[str, typer.Option(help="RFC 3339, UTC.")] = "",
    duration: Annotated[str, typer.Option(help="ISO 8601. Default: P30D.")] = "",
    minimum_score: Annotated[str, typer.Option(help="The score to lie above.")] = "",
    tie_rule: Annotated[str, typer.Option(help="earliest or split.")] = "",
    max_entries_per_day: Annotated[str, typer.Option(help="For each participant.")] = "",
    grace: Annotated[str, typer.Option(help="ISO 8601, for work in flight at the end.")] = "",
    evaluator: Annotated[str, typer.Option(help="One that the dataset can be evaluated by.")] = "",
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Fund a new pool on a dataset."""
    terms = PoolTerms(
        dataset=dataset,
        allocation=allocation,
        title=title,
        starts_at=starts_at,
        ends_at=ends_at,
        duration=duration,
        minimum_score=minimum_score,
        tie_rule=tie_rule,
        max_entries_per_day=max_entries_per_day,
        grace=grace,
        evaluator=evaluator,
    )
    _fund(wallet, quantity, terms.tags(), request_id, output)


@group.command()
def add(
    pool: PoolId,
    quantity: Annotated[str, typer.Argument(help="Units to add.")],
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Add units to an open pool."""
    _fund(wallet, quantity, [Tag(name="X-Pool", value=pool)], request_id, output)


@group.command("list")
def list_pools(
    dataset: Annotated[str, typer.Option(help="Only pools on this dataset.")] = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """List the pools, newest first."""

    async def work() -> list[benchmark_pb2.Pool]:
        found: list[benchmark_pb2.Pool] = []
        async with client_of(wallet) as client:
            page = ""
            while True:
                response = await client.benchmark.ListPools(
                    benchmark_pb2.ListPoolsRequest(dataset=dataset, page_token=page)
                )
                found.extend(response.pools)
                page = response.next_page_token
                if not page:
                    return found

    pools = run(work())
    if output is Format.JSON:
        print_json(pools)
        return
    print_table(
        ["pool", "title", "dataset", ">funds", "allocation", ">entries", "state", "ends (UTC)"],
        [
            (
                pool.id,
                pool.title,
                pool.dataset,
                pool.funds,
                pool.allocation,
                pool.entry_count,
                _pool_state(pool),
                moment(pool.end_time),
            )
            for pool in pools
        ],
    )


@group.command()
def show(pool: PoolId, output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Show a pool, its contributions and its payouts."""

    async def work() -> benchmark_pb2.GetPoolResponse:
        async with client_of(wallet) as client:
            return await client.benchmark.GetPool(benchmark_pb2.GetPoolRequest(id=pool))

    response = run(work())
    if output is Format.JSON:
        print_json(response)
        return
    found = response.pool
    print_fields(
        {
            "pool": found.id,
            "title": found.title,
            "state": _pool_state(found),
            "funds": found.funds,
            "funder": found.funder,
            "takes": subjects_text(found.subject_kind),
            "dataset": found.dataset,
            "version": found.dataset_version,
            "questions": found.question_count,
            "evaluator": found.evaluator,
            "allocation": found.allocation,
            "tie rule": found.tie_rule,
            "minimum score": found.minimum_score,
            "starts (UTC)": moment(found.start_time),
            "ends (UTC)": moment(found.end_time),
            "grace": f"{found.grace.seconds} s",
            "settled (UTC)": moment(found.settle_time),
        }
    )
    print_table(
        ["contribution", "payer", ">quantity", "time (UTC)"],
        [
            (short(c.transfer), c.payer, c.quantity, moment(c.create_time))
            for c in response.contributions
        ],
        title="Contributions",
    )
    print_table(
        [">rank", "recipient", ">quantity", "transfer"],
        [
            (p.rank or "returned", p.recipient, p.quantity, short(p.transfer))
            for p in response.payouts
        ],
        title="Payouts" if response.payouts_final else "Payouts, if the pool ended now",
    )


@group.command()
def leaderboard(
    pool: PoolId,
    live: Annotated[bool, typer.Option(help="Compute it now.")] = False,
    update: Annotated[bool, typer.Option(help="Take a new snapshot first.")] = False,
    watch: Annotated[bool, typer.Option(help="Print it at each change until the end.")] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show a pool's leaderboard."""

    async def work() -> None:
        request = benchmark_pb2.GetLeaderboardRequest(pool=pool, live=live)
        async with client_of(wallet) as client:
            asked = await client.benchmark.GetPool(benchmark_pb2.GetPoolRequest(id=pool))
            kind = asked.pool.subject_kind
            if update:
                taken = benchmark_pb2.UpdateLeaderboardRequest(pool=pool)
                await client.benchmark.UpdateLeaderboard(taken)
            if watch:
                async for board in watch_leaderboard(client, pool):
                    if output is Format.JSON:
                        print_json_line(board)
                    else:
                        print_leaderboard(board, kind=kind)
                return
            board = (await client.benchmark.GetLeaderboard(request)).leaderboard
            if output is Format.JSON:
                print_json(board)
            else:
                print_leaderboard(board, kind=kind)

    run(work())


@group.command()
def allocate(
    pool: Annotated[str, typer.Argument(help="The pool's id. Default: all that have ended.")] = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Pay pools out whose end has come."""

    async def work() -> list[benchmark_pb2.Pool]:
        async with client_of(wallet) as client:
            response = await client.benchmark.AllocateRewards(
                benchmark_pb2.AllocateRewardsRequest(pool=pool)
            )
            return list(response.pools)

    pools = run(work())
    if output is Format.JSON:
        print_json(pools)
        return
    print_table(
        ["pool", "title", ">funds", "state", "settled (UTC)"],
        [(p.id, p.title, p.funds, _pool_state(p), moment(p.settle_time)) for p in pools],
    )


def _fund(wallet: str, quantity: str, tags: list[Tag], request_id: str, output: Format) -> None:
    async def work() -> benchmark_pb2.Funding:
        async with client_of(wallet) as client:
            return await fund(client, quantity, tags, request_id=request_id)

    funding = run(work())
    if output is Format.JSON:
        print_json(funding)
    elif funding.state in (
        benchmark_pb2.FUNDING_STATE_CREATED,
        benchmark_pb2.FUNDING_STATE_ADDED,
    ):
        made = funding.state == benchmark_pb2.FUNDING_STATE_CREATED
        console.print(f"pool {funding.pool} {'created' if made else 'topped up'}", highlight=False)
    elif funding.state == benchmark_pb2.FUNDING_STATE_PENDING:
        console.print(
            f"transfer {funding.transfer} is sent and not decided on yet; "
            "try `evalpool pool list` later",
            highlight=False,
        )
    if funding.state == benchmark_pb2.FUNDING_STATE_REFUNDED:
        raise Failure(
            f"the units were refunded: {funding.reason}",
            reason=funding.reason_code,
            transfer=funding.transfer,
        )


def _pool_state(pool: benchmark_pb2.Pool) -> str:
    return enum_text(benchmark_pb2.PoolState.Name(pool.state), "POOL_STATE_")
