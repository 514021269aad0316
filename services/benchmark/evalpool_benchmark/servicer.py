"""BenchmarkService on gRPC: unpack, call the domain, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.benchmark.v1.benchmark_pb2_grpc import BenchmarkServiceServicer
from evalpool_benchmark import admission, messages, overview
from evalpool_benchmark.admission import Admission
from evalpool_benchmark.allocation import RULES, TIE_RULES
from evalpool_benchmark.closing import Closing
from evalpool_benchmark.credits import Credits
from evalpool_benchmark.entry import Entry
from evalpool_benchmark.funding import DEFAULT_DURATION, DEFAULT_GRACE, parse_span
from evalpool_benchmark.leaderboards import Leaderboards
from evalpool_benchmark.overview import Listed
from evalpool_benchmark.requests import (
    parse_disqualify,
    parse_id,
    parse_join,
    parse_list_pools,
    parse_watch_entry,
    parse_watch_leaderboard,
)
from evalpool_benchmark.settings import BenchmarkSettings
from evalpool_benchmark.store import entries
from evalpool_benchmark.wakes import Wakes
from evalpool_benchmark.watches import Watches
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.protobuf import duration
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the service does.

    Attributes:
        credits: Tells what became of transfers.
        admission: Finds out what joins need to know.
        leaderboards: Snapshots and live standings.
        watches: Follows entries and leaderboards.
        closing: Carries ended pools on.
    """

    credits: Credits
    admission: Admission
    leaderboards: Leaderboards
    watches: Watches
    closing: Closing


class BenchmarkServicer(BenchmarkServiceServicer):
    """Answers the contract's calls.

    Args:
        runtime: What the service runs on.
        database: Where everything is kept.
        wakes: What wakes loops and watches.
        use_cases: What it does.
    """

    def __init__(
        self,
        runtime: Runtime[BenchmarkSettings],
        database: Database,
        wakes: Wakes,
        use_cases: UseCases,
    ) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._database = database
        self._wakes = wakes
        self._do = use_cases

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        """Who this server is."""
        return pb.GetInfoResponse(
            info=self._runtime.service_info(),
            allocations=RULES,
            tie_rules=TIE_RULES,
            default_duration=duration(parse_span(DEFAULT_DURATION, self._clock.now())),
            default_grace=duration(DEFAULT_GRACE),
        )

    async def GetFunding(
        self, request: pb.GetFundingRequest, context: Any
    ) -> pb.GetFundingResponse:
        """What became of a transfer."""
        transfer = parse_id("transfer", request.transfer)
        funding = await self._do.credits.decision(transfer, by_operator=current_call().is_operator)
        if funding is None:
            return pb.GetFundingResponse(funding=messages.pending_message(transfer))
        return pb.GetFundingResponse(
            funding=messages.funding_message(funding, with_detail=_is_for(funding.payer))
        )

    async def ListPools(self, request: pb.ListPoolsRequest, context: Any) -> pb.ListPoolsResponse:
        """The pools, newest first."""
        query = parse_list_pools(request)
        filters = [request.dataset, int(request.state)]
        tokens = self._runtime.page_tokens
        found = await self._database.read(
            partial(
                overview.page,
                now=self._clock.now(),
                limit=query.size + 1,
                before=tokens.decode("ListPools", filters, request.page_token),
                dataset=query.dataset,
                state=query.state,
            )
        )
        shown = found[: query.size]
        response = pb.ListPoolsResponse(pools=self._pools(shown))
        if len(found) > query.size:
            last = shown[-1].pool.sequence
            response.next_page_token = tokens.encode("ListPools", filters, last)
        return response

    async def GetPool(self, request: pb.GetPoolRequest, context: Any) -> pb.GetPoolResponse:
        """One pool, its contributions and its payouts."""
        pool_id = parse_id("id", request.id)
        seen = await self._database.read(partial(overview.look_at, pool_id=pool_id))
        (pool,) = self._pools([seen.listed])
        return pb.GetPoolResponse(
            pool=pool,
            contributions=map(messages.contribution_message, seen.contributions),
            payouts=messages.payout_messages(seen.payouts),
            payouts_final=seen.payouts_final,
        )

    async def JoinPool(self, request: pb.JoinPoolRequest, context: Any) -> pb.JoinPoolResponse:
        """Enters a subject."""
        call = current_call()
        # The service's own key is its operator's as well, and the ledger pays nobody from himself.
        is_operator = call.is_operator or call.address == self._runtime.identity.address
        asked = parse_join(request, call.address, is_operator=is_operator)
        subject = await self._do.admission.subject(asked)

        def work(connection: Connection) -> pb.JoinPoolResponse:
            entry = admission.join(connection, asked, subject, self._clock.now())
            return pb.JoinPoolResponse(entry=messages.entry_message(entry, with_detail=True))

        response = await once(self._database, pb.JoinPoolResponse, work)
        self._wakes.joins.notify()
        self._wakes.entries.notify()
        return response

    async def GetEntry(self, request: pb.GetEntryRequest, context: Any) -> pb.GetEntryResponse:
        """One entry."""
        entry_id = parse_id("id", request.id)
        entry = await self._database.read(partial(entries.require, entry_id=entry_id))
        return pb.GetEntryResponse(entry=_entry_message(entry))

    async def WatchEntry(
        self, request: pb.WatchEntryRequest, context: Any
    ) -> AsyncIterator[pb.WatchEntryResponse]:
        """An entry's changes until it is final."""
        asked = parse_watch_entry(request)
        async with aclosing(self._do.watches.entry(asked.id, asked.after)) as changes:
            async for entry in changes:
                yield pb.WatchEntryResponse(entry=_entry_message(entry))

    async def WithdrawEntry(
        self, request: pb.WithdrawEntryRequest, context: Any
    ) -> pb.WithdrawEntryResponse:
        """Takes an entry out."""
        entry_id = parse_id("id", request.id)
        participant = current_call().address

        def work(connection: Connection) -> pb.WithdrawEntryResponse:
            entry = admission.take_out(connection, entry_id, participant, self._clock.now())
            return pb.WithdrawEntryResponse(entry=messages.entry_message(entry, with_detail=True))

        response = await once(self._database, pb.WithdrawEntryResponse, work)
        self._wakes.entries.notify()
        return response

    async def DisqualifyEntry(
        self, request: pb.DisqualifyEntryRequest, context: Any
    ) -> pb.DisqualifyEntryResponse:
        """Excludes an entry."""
        asked = parse_disqualify(request)

        def work(connection: Connection) -> pb.DisqualifyEntryResponse:
            entry = admission.exclude(connection, asked.entry, asked.reason, self._clock.now())
            return pb.DisqualifyEntryResponse(entry=messages.entry_message(entry, with_detail=True))

        response = await once(self._database, pb.DisqualifyEntryResponse, work)
        self._wakes.entries.notify()
        self._wakes.ends.notify()
        return response

    async def UpdateLeaderboard(
        self, request: pb.UpdateLeaderboardRequest, context: Any
    ) -> pb.UpdateLeaderboardResponse:
        """Takes a snapshot."""
        board = await self._do.leaderboards.update(parse_id("pool", request.pool))
        return pb.UpdateLeaderboardResponse(leaderboard=messages.leaderboard_message(board))

    async def GetLeaderboard(
        self, request: pb.GetLeaderboardRequest, context: Any
    ) -> pb.GetLeaderboardResponse:
        """The newest snapshot, or a live leaderboard."""
        pool_id = parse_id("pool", request.pool)
        board = await self._do.leaderboards.get(pool_id, live=request.live)
        return pb.GetLeaderboardResponse(leaderboard=messages.leaderboard_message(board))

    async def WatchLeaderboard(
        self, request: pb.WatchLeaderboardRequest, context: Any
    ) -> AsyncIterator[pb.WatchLeaderboardResponse]:
        """A pool's snapshots, and its standing in between, until it is settled."""
        asked = parse_watch_leaderboard(request)
        async with aclosing(self._do.watches.leaderboard(asked.id, asked.after)) as boards:
            async for board in boards:
                yield pb.WatchLeaderboardResponse(leaderboard=messages.leaderboard_message(board))

    async def AllocateRewards(
        self, request: pb.AllocateRewardsRequest, context: Any
    ) -> pb.AllocateRewardsResponse:
        """Carries ended pools on."""
        closing = self._do.closing
        if request.pool:
            ids = [parse_id("pool", request.pool)]
            await closing.allocate(ids[0])
        else:
            ids = await closing.allocate_all()
        looked_at = await self._database.read(partial(overview.some, pool_ids=ids))
        return pb.AllocateRewardsResponse(pools=self._pools(looked_at))

    def _pools(self, found: list[Listed]) -> list[pb.Pool]:
        now = self._clock.now()
        return [messages.pool_message(each.pool, each.entry_count, now) for each in found]


def _is_for(address: str) -> bool:
    call = current_call()
    return call.is_operator or call.address == address


def _entry_message(entry: Entry) -> pb.Entry:
    return messages.entry_message(entry, with_detail=_is_for(entry.participant))
