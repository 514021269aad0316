"""BenchmarkService on gRPC: unpack, call the domain, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy import Connection

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.benchmark.v1.benchmark_pb2_grpc import BenchmarkServiceServicer
from evalpool.values import (
    Fields,
    InvalidValue,
    parse_dataset_id,
    parse_digest,
    parse_integer,
    parse_request_id,
    parse_text,
    parse_transfer_id,
)
from evalpool_benchmark import admission, messages
from evalpool_benchmark.admission import Admission, Join
from evalpool_benchmark.allocation import RULES, TIE_RULES
from evalpool_benchmark.closing import Closing
from evalpool_benchmark.entry import Entry
from evalpool_benchmark.funding import DEFAULT_DURATION, DEFAULT_GRACE, parse_span
from evalpool_benchmark.leaderboards import Leaderboards, no_pool
from evalpool_benchmark.payout import Contribution, PayoutLine, plan
from evalpool_benchmark.peers import Ledger, PeerRefused, PeerUnavailable
from evalpool_benchmark.pool import SETTLED, Pool, PoolState
from evalpool_benchmark.ranking import rank
from evalpool_benchmark.settings import BenchmarkSettings
from evalpool_benchmark.store import entries, fundings, pools, results
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    FailedPrecondition,
    NotFound,
    Unavailable,
    reasons,
)
from evalpool_runtime.protobuf import duration
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_REASON = 500
_SNAPSHOTS_AT_A_TIME = 20


class BenchmarkServicer(BenchmarkServiceServicer):
    """Answers the contract's calls.

    Args:
        runtime: What the service runs on.
        database: Where everything is kept.
        ledger: The token service.
        joins: What joins need to know.
        leaderboards: Snapshots and live standings.
        closing: What carries ended pools on.
        wakes: What wakes loops and watches.
    """

    def __init__(
        self,
        runtime: Runtime[BenchmarkSettings],
        database: Database,
        ledger: Ledger,
        joins: Admission,
        leaderboards: Leaderboards,
        closing: Closing,
        wakes: Wakes,
    ) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._database = database
        self._ledger = ledger
        self._joins = joins
        self._leaderboards = leaderboards
        self._closing = closing
        self._wakes = wakes

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        """Who this server is."""
        now = self._clock.now()
        return pb.GetInfoResponse(
            info=self._runtime.service_info(),
            allocations=RULES,
            tie_rules=TIE_RULES,
            default_duration=duration(parse_span(DEFAULT_DURATION, now)),
            default_grace=duration(DEFAULT_GRACE),
        )

    async def GetFunding(
        self, request: pb.GetFundingRequest, context: Any
    ) -> pb.GetFundingResponse:
        """What became of a transfer."""
        fields = Fields()
        transfer = fields.parse("transfer", parse_transfer_id, request.transfer)
        fields.check()
        read = partial(fundings.get, transfer=transfer)
        funding = await self._database.read(read)
        if funding is None:
            try:
                credit = await self._ledger.credit(transfer)
            except (PeerUnavailable, PeerRefused) as error:
                raise Unavailable(
                    reasons.ERROR_REASON_UNAVAILABLE,
                    "the token service cannot be reached now; ask again",
                    retry_after=1.0,
                ) from error
            if credit is None:
                raise NotFound(
                    reasons.ERROR_REASON_FUNDING_NOT_FOUND,
                    f'transfer: no transfer "{transfer}" was sent to this service; its id is in '
                    "the answer to Transfer",
                    transfer=transfer,
                )
            # It may have been decided in the meantime.
            funding = await self._database.read(read)
        if funding is None:
            return pb.GetFundingResponse(
                funding=pb.Funding(transfer=transfer, state=pb.FUNDING_STATE_PENDING)
            )
        return pb.GetFundingResponse(
            funding=messages.funding_message(funding, with_detail=_is_for(funding.payer))
        )

    async def ListPools(self, request: pb.ListPoolsRequest, context: Any) -> pb.ListPoolsResponse:
        """The pools, newest first."""
        fields = Fields()
        size = fields.attempt(
            "page_size",
            lambda: parse_integer(
                request.page_size, at_least=1, at_most=MAX_PAGE, default=DEFAULT_PAGE
            ),
        )
        if request.dataset:
            fields.parse("dataset", parse_dataset_id, request.dataset)
        state = fields.attempt("state", lambda: _state_filter(request.state))
        fields.check()
        filters = [request.dataset, int(request.state)]
        before = self._runtime.page_tokens.decode("ListPools", filters, request.page_token)
        now = self._clock.now()

        def read(connection: Connection) -> tuple[list[Pool], dict[str, int]]:
            found = pools.page(
                connection,
                now=now,
                limit=size + 1,
                before=before,
                dataset=request.dataset,
                state=state,
            )
            return found, pools.entry_counts(connection, [pool.id for pool in found])

        found, counts = await self._database.read(read)
        token = ""
        if len(found) > size:
            found = found[:size]
            token = self._runtime.page_tokens.encode("ListPools", filters, found[-1].sequence)
        return pb.ListPoolsResponse(
            pools=[messages.pool_message(pool, counts.get(pool.id, 0), now) for pool in found],
            next_page_token=token,
        )

    async def GetPool(self, request: pb.GetPoolRequest, context: Any) -> pb.GetPoolResponse:
        """One pool, its contributions and its payouts."""
        pool_id = _pool_id("id", request.id)
        now = self._clock.now()

        def read(
            connection: Connection,
        ) -> tuple[Pool, int, list[Contribution], tuple[PayoutLine, ...], bool]:
            pool = pools.get(connection, pool_id)
            if pool is None:
                raise no_pool(pool_id)
            paid = pools.contributions_of(connection, pool_id)
            entered = entries.of_pool(connection, pool_id)
            lines = tuple(results.plan_of(connection, pool_id))
            final = bool(lines)
            if not final:
                lines = plan(pool, rank(entered, pool.minimum), paid)
            return pool, len(entered), paid, lines, final

        pool, count, paid, lines, final = await self._database.read(read)
        return pb.GetPoolResponse(
            pool=messages.pool_message(pool, count, now),
            contributions=[messages.contribution_message(each) for each in paid],
            payouts=messages.payout_messages(lines),
            payouts_final=final,
        )

    async def JoinPool(self, request: pb.JoinPoolRequest, context: Any) -> pb.JoinPoolResponse:
        """Enters a subject."""
        fields = Fields()
        call = current_call()
        asked = Join(
            pool=fields.parse("pool", parse_transfer_id, request.pool),
            subject=fields.parse("subject", parse_digest, request.subject),
            participant=call.address,
            request_id=fields.parse("request_id", parse_request_id, request.request_id),
            is_operator=call.is_operator,
        )
        fields.check()
        subject = await self._joins.subject(asked)

        def work(connection: Connection) -> pb.JoinPoolResponse:
            entry = admission.join(connection, asked, subject, self._clock.now())
            return pb.JoinPoolResponse(entry=messages.entry_message(entry, with_detail=True))

        response = await once(self._database, pb.JoinPoolResponse, work)
        self._wakes.joins.notify()
        self._wakes.entries.notify()
        return response

    async def GetEntry(self, request: pb.GetEntryRequest, context: Any) -> pb.GetEntryResponse:
        """One entry."""
        return pb.GetEntryResponse(entry=_entry_message(await self._entry(request.id)))

    async def WatchEntry(
        self, request: pb.WatchEntryRequest, context: Any
    ) -> AsyncIterator[pb.WatchEntryResponse]:
        """An entry's changes until its final state."""
        revision = _cursor("after_revision", request.after_revision)
        while True:
            seen = self._wakes.entries.version
            entry = await self._entry(request.id)
            if entry.revision > revision:
                yield pb.WatchEntryResponse(entry=_entry_message(entry))
                revision = entry.revision
            if entry.is_final:
                return
            self._go_on()
            await self._wakes.entries.wait(seen, self._runtime.settings.watch_poll_seconds)

    async def WithdrawEntry(
        self, request: pb.WithdrawEntryRequest, context: Any
    ) -> pb.WithdrawEntryResponse:
        """Takes an entry out."""
        entry_id = _entry_id(request.id)
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
        fields = Fields()
        entry_id = fields.parse("id", parse_transfer_id, request.id)
        reason = fields.attempt(
            "reason", lambda: parse_text(request.reason, at_least=1, at_most=MAX_REASON)
        )
        fields.check()

        def work(connection: Connection) -> pb.DisqualifyEntryResponse:
            entry = admission.exclude(connection, entry_id, reason, self._clock.now())
            return pb.DisqualifyEntryResponse(entry=messages.entry_message(entry, with_detail=True))

        response = await once(self._database, pb.DisqualifyEntryResponse, work)
        self._wakes.entries.notify()
        self._wakes.ends.notify()
        return response

    async def UpdateLeaderboard(
        self, request: pb.UpdateLeaderboardRequest, context: Any
    ) -> pb.UpdateLeaderboardResponse:
        """Takes a snapshot."""
        board = await self._leaderboards.update(_pool_id("pool", request.pool))
        return pb.UpdateLeaderboardResponse(leaderboard=messages.leaderboard_message(board))

    async def GetLeaderboard(
        self, request: pb.GetLeaderboardRequest, context: Any
    ) -> pb.GetLeaderboardResponse:
        """The newest snapshot, or a live leaderboard."""
        board = await self._leaderboards.get(_pool_id("pool", request.pool), live=request.live)
        return pb.GetLeaderboardResponse(leaderboard=messages.leaderboard_message(board))

    async def WatchLeaderboard(
        self, request: pb.WatchLeaderboardRequest, context: Any
    ) -> AsyncIterator[pb.WatchLeaderboardResponse]:
        """A pool's snapshots until it is settled."""
        fields = Fields()
        pool_id = fields.parse("pool", parse_transfer_id, request.pool)
        fields.check()
        revision = _cursor("after_revision", request.after_revision)
        if revision == 0:
            newest = await self._database.read(partial(results.newest_revision, pool=pool_id))
            revision = max(newest - 1, 0)
        while True:
            seen = self._wakes.pools.version
            pool, boards = await self._database.read(
                partial(_snapshots, pool_id=pool_id, revision=revision)
            )
            for board in boards:
                yield pb.WatchLeaderboardResponse(leaderboard=messages.leaderboard_message(board))
                revision = board.revision
            if boards:
                continue
            if pool.state(self._clock.now()) in SETTLED:
                return
            self._go_on()
            await self._wakes.pools.wait(seen, self._runtime.settings.watch_poll_seconds)

    async def AllocateRewards(
        self, request: pb.AllocateRewardsRequest, context: Any
    ) -> pb.AllocateRewardsResponse:
        """Carries ended pools on."""
        now = self._clock.now()
        if request.pool:
            ids = [_pool_id("pool", request.pool)]
            (pool,) = await self._database.read(partial(_pools, ids=ids))
            if pool.state(now) in (PoolState.SCHEDULED, PoolState.OPEN):
                raise FailedPrecondition(
                    reasons.ERROR_REASON_POOL_NOT_ENDED,
                    f"pool: it ends at {pool.end_time:%Y-%m-%dT%H:%M:%SZ}; allocate its rewards "
                    "then",
                    end_time=pool.end_time.isoformat(),
                )
        else:
            ids = await self._database.read(partial(pools.unsettled_after_end, now=now))
        for pool_id in ids:
            await self._closing.advance(pool_id, ask=True)

        def read(connection: Connection) -> tuple[list[Pool], dict[str, int]]:
            return _pools(connection, ids), pools.entry_counts(connection, ids)

        looked_at, counts = await self._database.read(read)
        return pb.AllocateRewardsResponse(
            pools=[
                messages.pool_message(pool, counts.get(pool.id, 0), self._clock.now())
                for pool in looked_at
            ]
        )

    async def _entry(self, entry_id: str) -> Entry:
        entry = await self._database.read(partial(entries.get, entry_id=_entry_id(entry_id)))
        if entry is None:
            raise admission.no_entry(entry_id)
        return entry

    def _go_on(self) -> None:
        """End a watch when the service stops."""
        if self._runtime.stopping.is_set():
            raise self._runtime.stopping_error()


def _is_for(address: str) -> bool:
    call = current_call()
    return call.is_operator or call.address == address


def _entry_message(entry: Entry) -> pb.Entry:
    return messages.entry_message(entry, with_detail=_is_for(entry.participant))


def _pool_id(field: str, text: str) -> str:
    fields = Fields()
    parsed = fields.parse(field, parse_transfer_id, text)
    fields.check()
    return parsed


def _entry_id(text: str) -> str:
    return _pool_id("id", text)


def _cursor(field: str, value: int) -> int:
    fields = Fields()
    fields.attempt(field, lambda: parse_integer(value, at_least=0, at_most=2**63 - 1))
    fields.check()
    return value


def _state_filter(number: pb.PoolState.ValueType) -> PoolState | None:
    try:
        return messages.pool_state(number)
    except KeyError:
        raise InvalidValue(f"{number} is no state of a pool; leave it out for all") from None


def _pools(connection: Connection, ids: list[str]) -> list[Pool]:
    found = []
    for pool_id in ids:
        pool = pools.get(connection, pool_id)
        if pool is None:
            raise no_pool(pool_id)
        found.append(pool)
    return found


def _snapshots(connection: Connection, pool_id: str, revision: int) -> tuple[Pool, list[Any]]:
    pool = pools.get(connection, pool_id)
    if pool is None:
        raise no_pool(pool_id)
    return pool, results.snapshots_after(connection, pool_id, revision, _SNAPSHOTS_AT_A_TIME)
