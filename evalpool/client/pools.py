"""Pools: fund one, follow its entries and its leaderboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from uuid import uuid4

import grpc

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.client.connection import Client
from evalpool.client.watching import resumed
from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.token.v1 import token_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """What a funder may say of a new pool; empty means the benchmark service's default.

    Attributes:
        dataset: The dataset's id.
        allocation: The allocation rule.
        title: For people.
        starts_at: RFC 3339, UTC.
        ends_at: RFC 3339, UTC.
        duration: ISO 8601, instead of `ends_at`.
        minimum_score: The score to lie above.
        tie_rule: "earliest" or "split".
        max_entries_per_day: Entries a participant may make within 24 hours.
        grace: ISO 8601; what work in flight gets after the end.
        evaluator: "loglikelihood", "letter", "exact_match" or "judge".
    """

    dataset: str
    allocation: str = "ArithmeticDecrease"
    title: str = ""
    starts_at: str = ""
    ends_at: str = ""
    duration: str = ""
    minimum_score: str = ""
    tie_rule: str = ""
    max_entries_per_day: str = ""
    grace: str = ""
    evaluator: str = ""

    def tags(self) -> list[Tag]:
        """The transfer's tags."""
        return [
            Tag(name="X-" + "-".join(part.title() for part in field.name.split("_")), value=value)
            for field in fields(self)
            if (value := getattr(self, field.name))
        ]


async def fund(
    client: Client, quantity: str, tags: list[Tag], *, request_id: str = "", patience: float = 60.0
) -> benchmark_pb2.Funding:
    """Pay the benchmark service and wait for its decision.

    Args:
        client: Who pays.
        quantity: Units.
        tags: `PoolTerms.tags()` for a new pool, or X-Pool for one that is open.
        request_id: Chosen by the caller for repeats. Default: a new one.
        patience: Seconds to wait for the decision; after that it is still pending.
    """
    response = await client.token.Transfer(
        token_pb2.TransferRequest(
            recipient=await client.address("benchmark"),
            quantity=quantity,
            tags=tags,
            request_id=request_id or f"fund-{uuid4()}",
        )
    )
    return await decision(client, response.transfer.id, patience=patience)


async def decision(
    client: Client, transfer: str, *, patience: float = 60.0
) -> benchmark_pb2.Funding:
    """Wait until the benchmark service has decided on a transfer, and has sent back a refund."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    pause = 0.05
    while True:
        funding = await _funding(client, transfer)
        refunded = funding.state == benchmark_pb2.FUNDING_STATE_REFUNDED
        decided = funding.state not in (
            benchmark_pb2.FUNDING_STATE_UNSPECIFIED,
            benchmark_pb2.FUNDING_STATE_PENDING,
        )
        if (decided and (not refunded or funding.refund_transfer)) or loop.time() > deadline:
            return funding
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)


async def _funding(client: Client, transfer: str) -> benchmark_pb2.Funding:
    try:
        response = await client.benchmark.GetFunding(
            benchmark_pb2.GetFundingRequest(transfer=transfer)
        )
    except grpc.aio.AioRpcError as error:
        # The notice has not reached the benchmark service yet.
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return benchmark_pb2.Funding(transfer=transfer, state=benchmark_pb2.FUNDING_STATE_PENDING)
    return response.funding


async def watch_entry(client: Client, entry: str) -> AsyncIterator[benchmark_pb2.Entry]:
    """Follow an entry until it is final, over restarts of the service.

    A failure with a `retry_time` is told and followed further: the entry is tried again, at the
    latest until its pool's result is frozen.
    """
    stream = resumed(
        lambda cursor: aiter(
            client.benchmark.WatchEntry(
                benchmark_pb2.WatchEntryRequest(id=entry, after_revision=cursor)
            )
        ),
        lambda message: message.entry.revision,
    )
    async for message in stream:
        yield message.entry


async def watch_leaderboard(
    client: Client, pool: str, *, after: int = 0
) -> AsyncIterator[benchmark_pb2.Leaderboard]:
    """Follow a pool's leaderboard until it is settled, over restarts of the service."""
    stream = resumed(
        lambda cursor: aiter(
            client.benchmark.WatchLeaderboard(
                benchmark_pb2.WatchLeaderboardRequest(pool=pool, after_revision=cursor)
            )
        ),
        lambda message: message.leaderboard.revision,
        after=after,
    )
    async for message in stream:
        yield message.leaderboard
