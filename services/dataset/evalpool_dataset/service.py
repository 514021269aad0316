"""The dataset service: its parts put together."""

from __future__ import annotations

from datetime import timedelta

from evalpool.dataset.v1 import dataset_pb2_grpc
from evalpool.embedding.v1 import embedding_pb2_grpc
from evalpool.router.v1 import router_pb2_grpc
from evalpool.token.v1 import token_pb2_grpc
from evalpool_dataset.benchmarking import Benchmarking
from evalpool_dataset.choice_scores import ChoiceScores
from evalpool_dataset.evaluation import Policy
from evalpool_dataset.grading import Grading
from evalpool_dataset.herd import Herd
from evalpool_dataset.library import Library
from evalpool_dataset.loading import Loading
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.models import Models
from evalpool_dataset.parts import installed_kinds
from evalpool_dataset.purse import Purse
from evalpool_dataset.replies import Replies
from evalpool_dataset.rights import Rights
from evalpool_dataset.runner import Runner, RunnerSettings
from evalpool_dataset.scores import Scores, Standings
from evalpool_dataset.servicer import DatasetServicer, UseCases
from evalpool_dataset.settings import DatasetSettings
from evalpool_dataset.sweep import Sweep
from evalpool_runtime.access import Who
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.watch import Changes

FORGET_SECONDS = 300.0


async def build(runtime: Runtime[DatasetSettings]) -> None:
    """Build the dataset service on its runtime."""
    settings = runtime.settings
    # On disk before it is told: the benchmark service pays by the scores, and keeps their cursor.
    database = await runtime.open_database("evalpool_dataset.migrations", durable=True)
    runtime.peer_role(Who.BENCHMARK, settings.benchmark_address)
    changes = Changes()
    metrics = DatasetMetrics(runtime.metrics)
    kinds = installed_kinds()
    router = router_pb2_grpc.RouterServiceStub(
        runtime.channel(settings.router_endpoint, settings.router_address)
    )
    ledger = (
        token_pb2_grpc.TokenServiceStub(
            runtime.channel(settings.token_endpoint, settings.token_address)
        )
        if settings.token_endpoint
        else None
    )
    documents = (
        embedding_pb2_grpc.EmbeddingServiceStub(
            runtime.channel(settings.embedding_endpoint, settings.embedding_address)
        )
        if settings.embedding_endpoint
        else None
    )
    library = Library(documents, settings.embedding_address)
    purse = Purse(ledger, runtime.identity.address, settings.router_address)
    herd = Herd(
        router,
        settings.router_address,
        ChoiceScores(router, purse, runtime.clock),
        Replies(
            router,
            purse,
            runtime.clock,
            Grading(router, purse, runtime.clock),
            library,
            settings.concurrent_replies,
        ),
    )
    runner = Runner(
        database,
        herd,
        kinds,
        changes,
        runtime.clock,
        RunnerSettings(
            settings.chunk_questions,
            settings.concurrent_chunks,
            timedelta(seconds=settings.lease_seconds),
            Policy(attempts=settings.max_tries, failed_starts=settings.max_failed_starts),
        ),
        runtime.stopping,
        metrics,
    )
    rights = Rights(settings.benchmark_address)
    models = Models(database, herd, library)
    standings = Standings(runtime.clock, settings.chunk_questions)
    sweep = Sweep(database, rights, runner)
    use_cases = UseCases(
        kinds=kinds,
        rights=rights,
        loading=Loading(database, kinds, rights, runtime.clock, metrics, settings.max_file_bytes),
        models=models,
        benchmarking=Benchmarking(
            database, kinds, models, rights, standings, runner, changes, runtime.clock
        ),
        sweep=sweep,
        scores=Scores(standings, database, rights, changes, runtime.stopping),
    )
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(
        DatasetServicer(runtime, database, use_cases), runtime.server
    )

    if database.dialect == "sqlite" and not settings.database_url:
        # In the data directory, which is this process's alone: whoever held leases was killed.
        await runner.abandon()

    async def forget() -> None:
        await database.write(lambda connection: forget_expired(connection, runtime.clock.now()))

    runtime.spawn("drain", runner.drain)
    runtime.every("expire-leases", settings.lease_seconds / 2, runner.expire)
    runtime.every("evaluate", settings.evaluate_seconds, sweep.run)
    runtime.every("forget-tokens", FORGET_SECONDS, forget)


SERVICE = ServiceDefinition(
    name="dataset",
    port=50053,
    settings_type=DatasetSettings,
    grpc_service="evalpool.dataset.v1.DatasetService",
    build=build,
)
