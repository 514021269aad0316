"""A benchmark service among its peers: the real token service and a dataset service double."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.benchmark.v1.benchmark_pb2_grpc import BenchmarkServiceStub
from evalpool.channel import open_channel
from evalpool.cli.auditing import audit_books, database_in
from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2
from evalpool.token.v1.token_pb2_grpc import TokenServiceStub
from evalpool_benchmark.service import SERVICE
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE as TOKEN
from tests.benchmark.dataset_double import DatasetDouble, running_double
from tests.waiting import until

if TYPE_CHECKING:
    from evalpool.benchmark.v1.benchmark_pb2_grpc import BenchmarkServiceAsyncStub
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub

T = TypeVar("T")

DATASET = "siqa"
DATASET_OWNER = Identity.generate()
TOKEN_KEY = Identity.generate()
DATASET_ADDRESS = Identity.generate().address


class ClockedIdentity(Identity):
    """A key that signs by a clock of the test's, so that its tokens are valid where that rules."""

    clock: ManualClock

    def token(self, audience: str, **_: Any) -> str:
        return super().token(audience, now=lambda: self.clock.now().timestamp())

    def reusable_token(self, audience: str, **_: Any) -> str:
        return self.token(audience)


class World:
    """Everything that a pool's life touches.

    Attributes:
        clock: The benchmark service's clock; begins now, as the ledger's runs by the machine's.
        dataset: The dataset service double.
        token: The real token service.
        benchmark: The real benchmark service.
        operator: The benchmark service's operator.
    """

    def __init__(
        self,
        directory: Path,
        dataset: DatasetDouble,
        database_url: str = "",
        token_database_url: str = "",
    ) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.dataset = dataset
        self.token: ServiceUnderTest
        self.benchmark: ServiceUnderTest
        self.operator = self.person()
        self._key = Identity.generate()
        self._directory = directory
        self._database_url = database_url
        self._token_database_url = token_database_url
        self._token_stack = AsyncExitStack()
        self._benchmark_stack = AsyncExitStack()
        self._channels = AsyncExitStack()
        self._names = itertools.count(1)

    def person(self) -> ClockedIdentity:
        """Somebody with a key."""
        identity = ClockedIdentity.generate()
        assert isinstance(identity, ClockedIdentity)
        identity.clock = self.clock
        return identity

    def as_person(self, identity: Identity) -> ClockedIdentity:
        """Somebody with a key that is there already."""
        person = ClockedIdentity(identity._key)
        person.clock = self.clock
        return person

    async def start_token(self, **settings: Any) -> None:
        """Start the token service, on what it has kept."""
        self.token = await self._token_stack.enter_async_context(
            running(
                TOKEN,
                self._directory / "token",
                identity=TOKEN_KEY,
                **{"database_url": self._token_database_url, **settings},
            )
        )

    async def stop_token(self) -> None:
        """Stop the token service."""
        await self._token_stack.aclose()

    async def start_benchmark(self) -> None:
        """Start the benchmark service, on what it has kept."""
        self.benchmark = await self._benchmark_stack.enter_async_context(
            self._running_benchmark("benchmark")
        )

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[ServiceUnderTest]:
        """A second benchmark service with the same key and, on PostgreSQL, the same database."""
        async with self._running_benchmark("replica") as replica:
            yield replica

    def _running_benchmark(self, name: str) -> AbstractAsyncContextManager[ServiceUnderTest]:
        settings: dict[str, Any] = {}
        if self._database_url:
            settings["database_url"] = self._database_url
        return running(
            SERVICE,
            self._directory / name,
            clock=self.clock,
            identity=self._key,
            operator=self.operator,
            token_endpoint=self.token.endpoint,
            token_address=TOKEN_KEY.address,
            dataset_endpoint=self.dataset.endpoint,
            dataset_address=DATASET_ADDRESS,
            retry_seconds=0.05,
            watch_poll_seconds=0.05,
            follow_seconds=3600,
            lease_seconds=0.5,
            **settings,
        )

    async def stop_benchmark(self) -> None:
        """Stop the benchmark service."""
        await self._benchmark_stack.aclose()

    async def restart_benchmark(self) -> None:
        """Stop the benchmark service and start it again."""
        await self.stop_benchmark()
        await self.start_benchmark()

    def audit(self) -> None:
        """See that ledger and books add up, whatever happened to them."""
        token, benchmark = self._token_database_url, self._database_url
        report = audit_books(
            token or database_in(self._directory, "token"),
            benchmark or database_in(self._directory, "benchmark"),
            self._key.address,
        )
        assert report.differences == ()

    async def stop(self) -> None:
        """Stop everything."""
        await self._channels.aclose()
        await self.stop_benchmark()
        await self.stop_token()

    def ledger(self, identity: Identity) -> TokenServiceAsyncStub:
        """The token service, called by somebody by the machine's clock."""
        signer = Identity(identity._key)
        channel = open_channel(self.token.endpoint, signer, self.token.address, retries=False)
        self._channels.push_async_callback(channel.close)
        return TokenServiceStub(channel)

    def pools(
        self, identity: Identity | None, at: ServiceUnderTest | None = None
    ) -> BenchmarkServiceAsyncStub:
        """The benchmark service, or a replica of it, called by somebody."""
        server = at or self.benchmark
        channel = open_channel(server.endpoint, identity, server.address, retries=False)
        self._channels.push_async_callback(channel.close)
        return BenchmarkServiceStub(channel)

    async def mint(self, recipient: str, quantity: int) -> str:
        """Make units for somebody; returns the transfer's id."""
        response = await self.ledger(self.token.operator).Mint(
            token_pb2.MintRequest(
                recipient=recipient, quantity=str(quantity), request_id=self.name()
            )
        )
        return response.transfer.id

    async def funder(self, quantity: int = 1_000) -> ClockedIdentity:
        """Somebody with units."""
        person = self.person()
        await self.mint(person.address, quantity)
        return person

    async def balance(self, identity: Identity) -> int:
        """What somebody has."""
        response = await self.ledger(identity).GetBalance(token_pb2.GetBalanceRequest())
        return int(response.balance)

    async def own_balance(self) -> int:
        """What the benchmark service has."""
        return await self.balance(self.benchmark.running.runtime.identity)

    async def history(self, identity: Identity) -> list[token_pb2.Transfer]:
        """Somebody's transfers, newest first."""
        response = await self.ledger(identity).ListTransfers(token_pb2.ListTransfersRequest())
        return list(response.transfers)

    async def transfer(self, funder: Identity, quantity: int, *tags: tuple[str, str]) -> str:
        """Pay the benchmark service; returns the transfer's id."""
        response = await self.ledger(funder).Transfer(
            token_pb2.TransferRequest(
                recipient=self.benchmark.address,
                quantity=str(quantity),
                tags=[Tag(name=name, value=value) for name, value in tags],
                request_id=self.name(),
            )
        )
        return response.transfer.id

    async def decided(self, funder: Identity, transfer: str) -> pb.Funding:
        """The decision on a transfer, once there is one."""
        stub = self.pools(funder)

        async def get() -> pb.Funding:
            response = await stub.GetFunding(pb.GetFundingRequest(transfer=transfer))
            return response.funding

        return await until(get, lambda funding: funding.state != pb.FUNDING_STATE_PENDING)

    async def refunded(self, funder: Identity, transfer: str) -> pb.Funding:
        """The decision on a transfer, once its refund is sent."""
        stub = self.pools(funder)

        async def get() -> pb.Funding:
            response = await stub.GetFunding(pb.GetFundingRequest(transfer=transfer))
            return response.funding

        return await until(get, lambda funding: bool(funding.refund_transfer))

    async def pool(
        self,
        funder: Identity,
        quantity: int = 100,
        *,
        allocation: str = "ArithmeticDecrease",
        dataset: str = DATASET,
        **tags: str,
    ) -> str:
        """Make a pool; returns its id."""
        named = [(f"X-{name.replace('_', '-')}", value) for name, value in tags.items()]
        transfer = await self.transfer(
            funder, quantity, ("X-Dataset", dataset), ("X-Allocation", allocation), *named
        )
        funding = await self.decided(funder, transfer)
        assert funding.state == pb.FUNDING_STATE_CREATED, funding
        # The ledger's clock runs on while the service's stands still.
        self.catch_up()
        return transfer

    def catch_up(self) -> None:
        """Move the service's clock to the machine's, if that is ahead."""
        ahead = datetime.now(UTC) - self.clock.now()
        if ahead > timedelta():
            self.clock.advance(ahead)

    async def join(
        self,
        pool: str,
        subject: str,
        participant: Identity,
        request_id: str = "",
        at: ServiceUnderTest | None = None,
    ) -> pb.Entry:
        """Enter a subject."""
        response = await self.pools(participant, at).JoinPool(
            pb.JoinPoolRequest(pool=pool, subject=subject, request_id=request_id or self.name())
        )
        return response.entry

    async def entry_in(
        self, identity: Identity, entry: str, state: pb.EntryState.ValueType, after: int = 0
    ) -> pb.Entry:
        """An entry, once its watch has shown it in a state, after a revision."""
        request = pb.WatchEntryRequest(id=entry, after_revision=after)
        stream = self.pools(identity).WatchEntry(request)
        async for message in stream:
            if message.entry.state == state:
                stream.cancel()
                return message.entry
        raise AssertionError(f"the watch ended without {pb.EntryState.Name(state)}")

    async def scored_entries(self, pool: str, scores: list[int]) -> list[ClockedIdentity]:
        """Enter one model a participant and let each reach its score; the participants."""
        participants = []
        for number, correct in enumerate(scores, start=1):
            participant = self.person()
            digest = self.dataset.add_model(number)
            entry = await self.join(pool, digest, participant)
            await self.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
            await self.dataset.complete(digest, correct)
            await self.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)
            participants.append(participant)
        return participants

    async def allocate(self, pool: str = "", at: ServiceUnderTest | None = None) -> list[pb.Pool]:
        """Call AllocateRewards as anybody."""
        response = await self.pools(self.person(), at).AllocateRewards(
            pb.AllocateRewardsRequest(pool=pool)
        )
        return list(response.pools)

    async def show(self, pool: str) -> pb.GetPoolResponse:
        """A pool as anybody sees it."""
        return await self.pools(self.person()).GetPool(pb.GetPoolRequest(id=pool))

    async def settled(self, pool: str) -> pb.GetPoolResponse:
        """A pool, once it is settled."""
        return await until(
            lambda: self.show(pool),
            lambda shown: shown.pool.state in (pb.POOL_STATE_PAID, pb.POOL_STATE_RETURNED),
        )

    def everything(self) -> list[str]:
        """All that the benchmark service has stored, on SQLite; not how far its loops have come."""
        path = self._directory / "benchmark" / "benchmark.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            passing = re.compile(r'INSERT INTO "(leases|cursors|sweeps)"')
            return [line for line in connection.iterdump() if not passing.match(line)]

    def name(self) -> str:
        """A new request id."""
        return f"request-{next(self._names)}"


@asynccontextmanager
async def running_world(
    directory: Path, database_url: str = "", token_database_url: str = ""
) -> AsyncIterator[World]:
    """The three services, with one dataset of ten questions; the books are audited at the end.

    Args:
        directory: Where they keep their files.
        database_url: The benchmark service's database. Default: SQLite there.
        token_database_url: The token service's.
    """
    async with running_double() as dataset:
        dataset.add_dataset(DATASET, DATASET_OWNER.address)
        world = World(directory, dataset, database_url, token_database_url)
        await world.start_token()
        try:
            await world.start_benchmark()
            yield world
            world.audit()
        finally:
            await world.stop()
