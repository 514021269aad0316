"""`evalpool pool join`, `entry`, `withdraw` and `disqualify`: a pool's entries."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.app import run
from evalpool.cli.commands.pool import PoolId, group
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, RequestId, Wallet, client_of
from evalpool.cli.output import (
    Format,
    enum_text,
    moment,
    print_fields,
    print_json,
    printable,
    short,
)
from evalpool.cli.progress import Tracker
from evalpool.cli.subjects import subject_digest
from evalpool.client import Client
from evalpool.client.pools import watch_entry

_UNDER_WAY = frozenset({benchmark_pb2.ENTRY_STATE_QUEUED, benchmark_pb2.ENTRY_STATE_RUNNING})

EntryId = Annotated[str, typer.Argument(help="The entry's id.")]


@group.command()
def join(
    pool: PoolId,
    subject: Annotated[
        str,
        typer.Argument(
            help="A model's digest, its name in the catalogue, or a GGUF file; where the pool "
            "takes document sets the name or digest of your own."
        ),
    ],
    wait: Annotated[bool, typer.Option(help="Follow the entry to its end.")] = False,
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Enter a model in a pool, or a document set where the pool takes these."""

    async def work() -> benchmark_pb2.Entry:
        async with client_of(wallet) as client:
            joined = await client.benchmark.GetPool(benchmark_pb2.GetPoolRequest(id=pool))
            kind = joined.pool.subject_kind
            response = await client.benchmark.JoinPool(
                benchmark_pb2.JoinPoolRequest(
                    pool=pool,
                    subject=await subject_digest(client, kind, subject),
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


async def _follow(client: Client, entry: str, *, quiet: bool) -> benchmark_pb2.Entry:
    last = benchmark_pb2.Entry()
    with Tracker(short(entry), quiet=quiet) as tracker:
        async for last in watch_entry(client, entry):
            state = enum_text(benchmark_pb2.EntryState.Name(last.state), "ENTRY_STATE_")
            tracker.show(state, last.done, last.total)
            tracker.note(_standstill(state, last))
    return last


def _standstill(state: str, entry: benchmark_pb2.Entry) -> str:
    """Why an entry that may still be scored is not being evaluated; empty for others."""
    cause = printable(entry.reason or entry.reason_code).rstrip(".")
    if entry.HasField("retry_time"):
        return f"{state}: {cause}; it is tried again at {moment(entry.retry_time)} UTC"
    return f"{state}: {cause}" if cause and entry.state in _UNDER_WAY else ""


def _print_entry(found: benchmark_pb2.Entry, output: Format) -> None:
    if output is Format.JSON:
        print_json(found)
    else:
        most = found.done * found.full_marks
        graded = found.full_marks > 1
        scored = most and found.state == benchmark_pb2.ENTRY_STATE_SCORED
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
                "points": f"{found.points}/{most}" if most and graded else None,
                "score": f"{found.points / most:.4f}" if scored else None,
                "prize": "takes none" if found.prize_free else None,
                "joined (UTC)": moment(found.join_time),
            }
        )
    if found.state == benchmark_pb2.ENTRY_STATE_FAILED and not found.HasField("retry_time"):
        raise Failure(f"the entry failed: {found.reason}", reason=found.reason_code)
