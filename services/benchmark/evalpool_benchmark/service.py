"""How the benchmark service is put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import uuid4

from evalpool.benchmark.v1.benchmark_pb2_grpc import add_BenchmarkServiceServicer_to_server
from evalpool.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from evalpool.token.v1.token_pb2_grpc import TokenServiceStub
from evalpool_benchmark.admission import Admission
from evalpool_benchmark.closing import Closing
from evalpool_benchmark.consumer import NoticeConsumer
from evalpool_benchmark.credits import Credits
from evalpool_benchmark.datasets import Datasets
from evalpool_benchmark.leaderboards import Leaderboards
from evalpool_benchmark.ledger import Ledger
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.reconciler import Reconciler
from evalpool_benchmark.refunds import Refunds
from evalpool_benchmark.servicer import BenchmarkServicer, UseCases
from evalpool_benchmark.settings import BenchmarkSettings
from evalpool_benchmark.store import leases
from evalpool_benchmark.sweeps import Sweeps
from evalpool_benchmark.wakes import Wakes
from evalpool_benchmark.watches import Watches
from evalpool_benchmark.work_lease import WorkLeases
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition

FORGET_SECONDS = 3_600.0


async def build(runtime: Runtime[BenchmarkSettings]) -> None:
    """Open the database, add the servicer, start the loops and sweeps."""
    settings, clock = runtime.settings, runtime.clock
    # Decisions about money: a commit must survive a power cut.
    database = await runtime.open_database("evalpool_benchmark.migrations", durable=True)
    if database.dialect == "sqlite":
        # The data directory is locked, so whoever held a lease is gone.
        await database.write(leases.release_all)
    ledger = Ledger(
        TokenServiceStub(runtime.channel(settings.token_endpoint, settings.token_address)),
        runtime.identity.address,
        settings.peer_timeout,
    )
    datasets = Datasets(
        DatasetServiceStub(runtime.channel(settings.dataset_endpoint, settings.dataset_address)),
        settings.peer_timeout,
    )
    wakes = Wakes.make()
    metrics = BenchmarkMetrics(runtime.metrics)
    retry = settings.retry_seconds
    leaderboards = Leaderboards(database, clock, wakes)
    reconciler = Reconciler(database, datasets, wakes, metrics, clock, retry)
    closing = Closing(database, ledger, reconciler, wakes, metrics, clock, retry)
    add_BenchmarkServiceServicer_to_server(
        BenchmarkServicer(
            runtime,
            database,
            wakes,
            UseCases(
                credits=Credits(database, ledger),
                admission=Admission(database, datasets, clock),
                leaderboards=leaderboards,
                watches=Watches(runtime, database, wakes),
                closing=closing,
            ),
        ),
        runtime.server,
    )
    runtime.on_stop(leaderboards.stop)
    runtime.on_stop(closing.stop)

    work = WorkLeases(database, clock, uuid4().hex, settings.lease_seconds)
    for name, loop in (
        ("notices", NoticeConsumer(database, ledger, datasets, wakes, metrics, retry).run),
        ("refunds", Refunds(database, ledger, wakes, metrics, retry).run),
        ("submissions", reconciler.submit),
        ("scores", reconciler.follow),
        ("ends", closing.run),
    ):
        runtime.spawn(name, partial(_for_ever, work, name, loop))
    # Looked for as often as the work of a replica that was lost is taken over.
    sweeps = Sweeps(database, work, metrics, clock, settings.lease_seconds)
    for name, seconds, sweep in (
        ("open-entries", settings.follow_seconds, reconciler.sweep),
        ("leaderboards", settings.snapshot_seconds, leaderboards.sweep),
        ("allocation", settings.allocation_seconds, closing.sweep),
    ):
        runtime.spawn(name, partial(sweeps.run, name, seconds, sweep))
    runtime.every(
        "seen-tokens",
        FORGET_SECONDS,
        lambda: database.write(lambda connection: forget_expired(connection, clock.now())),
    )

    async def end_watches() -> None:
        await runtime.stopping.wait()
        wakes.notify_all()

    runtime.spawn("end-watches", end_watches)


async def _for_ever(work: WorkLeases, name: str, loop: Callable[[], Awaitable[None]]) -> None:
    # A lease that is lost is waited for again.
    while True:
        await work.run(name, loop)


SERVICE = ServiceDefinition(
    name="benchmark",
    port=50052,
    settings_type=BenchmarkSettings,
    grpc_service="evalpool.benchmark.v1.BenchmarkService",
    build=build,
)
