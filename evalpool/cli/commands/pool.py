"""`evalpool pool`: funded benchmarks."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

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
    errors,
    moment,
    print_fields,
    print_json,
    print_json_line,
    print_table,
    printable,
    short,
)
from evalpool.cli.progress import Tracker
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.client.pools import PoolTerms, fund, watch_entry, watch_leaderboard
from evalpool.common.v1.service_info_pb2 import Tag

group = typer.Typer(help="Funded benchmarks.", no_args_is_help=True)
app.add_typer(group, name="pool")

PoolId = Annotated[str, typer.Argument(help="The pool's id.")]
EntryId = Annotated[str, typer.Argument(help="The entry's id.")]


@group.command()
def create(
    dataset: Annotated[str, typer.Argument(help="The dataset's id.")],
    quantity: Annotated[str, typer.Argument(help="Units to put in.")],
    allocation: Annotated[str, typer.Option(help="The allocation rule.")] = "ArithmeticDecrease",
    title: Annotated[str, typer.Option(help="For people.")] = "",
    starts_at: Annotated[str, typer.Option(help="RFC 3339, UTC. Default: at once.")] = "",
    ends_at: Annotated[str, typer.Option(help="RFC 3339, UTC.")] = "",
    duration: Annotated[str, typer.Option(help="ISO 8601. Default: P30D.")] = "",
    minimum_score: Annotated[str, typer.Option(help="The score to lie above.")] = "",
    tie_rule: Annotated[str, typer.Option(help="earliest or split.")] = "",
    max_entries_per_day: Annotated[str, typer.Option(help="For each participant.")] = "",
    grace: Annotated[str, typer.Option(help="ISO 8601, for work in flight at the end.")] = "",
    evaluator: Annotated[str, typer.Option(help="loglikelihood, letter or judge.")] = "",
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
    """Show a pool, its contributions, and its payout plan or receipts."""

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
def join(
    pool: PoolId,
    subject: Annotated[
        str, typer.Argument(help="A model's digest, its name in the catalogue, or a GGUF file.")
    ],
    wait: Annotated[bool, typer.Option(help="Follow the entry to its end.")] = False,
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Enter a model in a pool."""

    async def work() -> benchmark_pb2.Entry:
        async with client_of(wallet) as client:
            response = await client.benchmark.JoinPool(
                benchmark_pb2.JoinPoolRequest(
                    pool=pool,
                    subject=await model_digest(client, subject),
                    request_id=request_id or f"join-{uuid4()}",
                )
            )
            if not wait:
                return response.entry
            return await _follow(client, response.entry.id, quiet=output is Format.JSON)

    _print_entry(run(work()), output)


@group.command()
def entry(
    entry: EntryId,
    watch: Annotated[bool, typer.Option(help="Follow it to its end.")] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show an entry."""

    async def work() -> benchmark_pb2.Entry:
        async with client_of(wallet) as client:
            if watch:
                return await _follow(client, entry, quiet=output is Format.JSON)
            response = await client.benchmark.GetEntry(benchmark_pb2.GetEntryRequest(id=entry))
            return response.entry

    _print_entry(run(work()), output)


@group.command()
def withdraw(
    entry: EntryId, output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET
) -> None:
    """Take your own entry out of an open pool."""

    async def work() -> benchmark_pb2.Entry:
        async with client_of(wallet) as client:
            response = await client.benchmark.WithdrawEntry(
                benchmark_pb2.WithdrawEntryRequest(id=entry)
            )
            return response.entry

    _print_entry(run(work()), output)


@group.command()
def disqualify(
    entry: EntryId,
    reason: Annotated[str, typer.Argument(help="Why; it is public.")],
    output: Output = Format.TABLE,
    wallet: Wallet = "operator",
) -> None:
    """Exclude an entry, as the operator."""

    async def work() -> benchmark_pb2.Entry:
        async with client_of(wallet) as client:
            response = await client.benchmark.DisqualifyEntry(
                benchmark_pb2.DisqualifyEntryRequest(id=entry, reason=reason)
            )
            return response.entry

    _print_entry(run(work()), output)


@group.command()
def leaderboard(
    pool: PoolId,
    live: Annotated[bool, typer.Option(help="Compute it now.")] = False,
    update: Annotated[bool, typer.Option(help="Take a new snapshot first.")] = False,
    watch: Annotated[bool, typer.Option(help="Print each snapshot until it is settled.")] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show a pool's leaderboard."""

    async def work() -> benchmark_pb2.Leaderboard | None:
        async with client_of(wallet) as client:
            if update:
                updated = await client.benchmark.UpdateLeaderboard(
                    benchmark_pb2.UpdateLeaderboardRequest(pool=pool)
                )
                if not watch:
                    return updated.leaderboard
            if not watch:
                response = await client.benchmark.GetLeaderboard(
                    benchmark_pb2.GetLeaderboardRequest(pool=pool, live=live)
                )
                return response.leaderboard
            async for snapshot in watch_leaderboard(client, pool):
                if output is Format.JSON:
                    print_json_line(snapshot)
                else:
                    print_leaderboard(snapshot)
            return None

    found = run(work())
    if found is None:
        return
    if output is Format.JSON:
        print_json(found)
    else:
        print_leaderboard(found)


@group.command()
def allocate(
    pool: Annotated[str, typer.Argument(help="The pool's id. Default: all that have ended.")] = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Carry pools whose end has come on towards their payout."""

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


async def _follow(client: Client, entry: str, *, quiet: bool) -> benchmark_pb2.Entry:
    last = benchmark_pb2.Entry()
    with Tracker(short(entry), quiet=quiet) as tracker:
        async for last in watch_entry(client, entry):
            state = enum_text(benchmark_pb2.EntryState.Name(last.state), "ENTRY_STATE_")
            tracker.show(state, last.done, last.total)
            if last.HasField("retry_time") and not quiet:
                cause = printable(last.reason or last.reason_code).rstrip(".")
                again = f"it is tried again at {moment(last.retry_time)} UTC"
                errors.print(f"{state}: {cause}; {again}", markup=False, highlight=False)
    return last


def _print_entry(found: benchmark_pb2.Entry, output: Format) -> None:
    if output is Format.JSON:
        print_json(found)
    else:
        scored = found.done and found.state == benchmark_pb2.ENTRY_STATE_SCORED
        print_fields(
            {
                "entry": found.id,
                "pool": found.pool,
                "subject": f"{found.subject_name} {short(found.subject)}",
                "participant": found.participant,
                "state": enum_text(benchmark_pb2.EntryState.Name(found.state), "ENTRY_STATE_"),
                "reason": found.reason,
                "tried again (UTC)": moment(found.retry_time),
                "queue position": found.queue_position or None,
                "progress": f"{found.done}/{found.total}" if found.total else None,
                "score": f"{found.correct / found.done:.4f}" if scored else None,
                "prize": "takes none" if found.prize_free else None,
                "joined (UTC)": moment(found.join_time),
            }
        )
    if found.state == benchmark_pb2.ENTRY_STATE_FAILED and not found.HasField("retry_time"):
        raise Failure(f"the entry failed: {found.reason}", reason=found.reason_code)


def _pool_state(pool: benchmark_pb2.Pool) -> str:
    return enum_text(benchmark_pb2.PoolState.Name(pool.state), "POOL_STATE_")
