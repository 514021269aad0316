"""The router service: its parts put together."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from evalpool.models import ModelStore
from evalpool.router.v1 import router_pb2_grpc
from evalpool.token.v1.token_pb2_grpc import TokenServiceStub
from evalpool_router.charge_metrics import ChargeMetrics
from evalpool_router.herd import Herd
from evalpool_router.inference import Inference
from evalpool_router.judging import Judging
from evalpool_router.last_multiplier import LastMultiplier
from evalpool_router.ledger import Ledger
from evalpool_router.membership import Membership
from evalpool_router.metrics import RouterMetrics
from evalpool_router.repository import Repository
from evalpool_router.roster import Roster
from evalpool_router.scheduler import Scheduler
from evalpool_router.servicer import RouterServicer
from evalpool_router.settings import RouterSettings
from evalpool_router.store import read_last_multiplier, read_workers
from evalpool_router.toll import Toll
from evalpool_router.uploads import Limits, Uploads
from evalpool_runtime.access import Who
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition

FORGET_SECONDS = 300.0
SWEEP_SECONDS = 3600.0
MULTIPLIER_SECONDS = 5.0
LET_GO_SECONDS = 60.0
LAST_MOMENT = 0.3
"""Seconds before the end of the grace at which answers under way are ended properly."""


async def build(runtime: Runtime[RouterSettings]) -> None:
    """Build the router on its runtime."""
    settings, clock = runtime.settings, runtime.clock
    database = await runtime.open_database(
        "evalpool_router.migrations", durable=settings.prices().paid
    )
    membership = Membership(settings.admitted_workers, await database.read(read_workers))
    runtime.role(Who.ADMITTED_WORKER, membership.is_admitted)
    runtime.peer_role(Who.DATASET, settings.dataset_address)

    files = await asyncio.to_thread(
        ModelStore,
        settings.repository_dir or runtime.data_dir / "repository",
        partial_seconds=timedelta(days=settings.upload_days).total_seconds(),
    )
    limits = Limits(
        owner_bytes=settings.upload_quota,
        total_bytes=settings.repository_bytes,
        keep_parts=timedelta(days=settings.upload_days),
    )
    repository = Repository(database, files)
    uploads = Uploads(database, files, repository, limits, clock)

    scheduler = Scheduler(settings.rules(), clock.monotonic())
    herd = Herd(
        scheduler,
        clock,
        runtime.identity,
        RouterMetrics(runtime.metrics),
        await database.read(read_last_multiplier),
    )
    multiplier = LastMultiplier(database, herd)
    runtime.on_stop(multiplier.keep)
    toll = Toll(
        settings.prices(),
        database,
        Ledger(
            TokenServiceStub(runtime.channel(settings.token_endpoint, settings.token_address)),
            settings.ledger_seconds,
        ),
        runtime.identity.address,
        clock,
        ChargeMetrics(runtime.metrics),
        settle_time=timedelta(seconds=settings.settle_seconds),
        retry_seconds=settings.ledger_seconds,
    )
    # There is one router a herd: what is open was under way in a process that is gone.
    await toll.let_go(timedelta())
    runtime.on_stop(toll.close)
    runtime.on_stop(herd.close)
    if settings.token_endpoint:
        # Where inference has become free, what was decided before is carried out all the same.
        runtime.spawn("charges", toll.run)
    runtime.spawn("herd time", herd.keep_time)

    async def end_in_time() -> None:
        await runtime.stopping.wait()
        herd.stop(runtime.stopping_error())
        await asyncio.sleep(max(settings.shutdown_grace - LAST_MOMENT, 0.0))
        herd.stop_now(runtime.stopping_error())

    runtime.spawn("end at the stop", end_in_time)
    runtime.every("last multiplier", MULTIPLIER_SECONDS, multiplier.keep)
    runtime.every("charges of nobody", LET_GO_SECONDS, toll.let_go)
    runtime.every("old charges", SWEEP_SECONDS, toll.forget)
    runtime.every("uploads", SWEEP_SECONDS, uploads.sweep)
    runtime.every(
        "seen tokens",
        FORGET_SECONDS,
        lambda: database.write(lambda tx: forget_expired(tx, clock.now())),
    )
    inference = Inference(herd, repository, toll, settings, clock)
    router_pb2_grpc.add_RouterServiceServicer_to_server(
        RouterServicer(
            runtime,
            inference,
            Judging(inference, toll, settings),
            toll,
            repository,
            uploads,
            membership,
            Roster(database, membership, herd, settings, clock),
        ),
        runtime.server,
    )


SERVICE = ServiceDefinition(
    name="router",
    port=50054,
    settings_type=RouterSettings,
    grpc_service="evalpool.router.v1.RouterService",
    build=build,
)
