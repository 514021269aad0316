"""The embedding service: how it is put together."""

from __future__ import annotations

import asyncio
from functools import partial

from evalpool.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server
from evalpool.endpoints import PORTS
from evalpool_embedding.embedder import Embedder
from evalpool_embedding.metrics import EmbeddingMetrics
from evalpool_embedding.model_source import ModelSource
from evalpool_embedding.servicer import EmbeddingServicer
from evalpool_embedding.settings import EmbeddingSettings
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.access import Who
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition

SWEEP_SECONDS = 600.0


async def build(runtime: Runtime[EmbeddingSettings]) -> None:
    """Put the service together: its database, its model, Chroma, the embedder, the servicer.

    Args:
        runtime: What it runs on.
    """
    settings = runtime.settings
    runtime.peer_role(Who.DATASET, settings.dataset_address)
    models = await asyncio.to_thread(
        ModelSource.of_catalogue,
        settings.models_dir,
        settings.model,
        settings.tokenizer,
        settings.threads,
    )
    runtime.on_stop(models.close)
    database = await runtime.open_database("evalpool_embedding.migrations")
    vectors = await asyncio.to_thread(
        VectorIndex.embedded, settings.chroma_path or runtime.data_dir / "chroma"
    )
    runtime.on_stop(partial(asyncio.to_thread, vectors.close))
    embedder = Embedder(
        database,
        vectors,
        models,
        runtime.clock,
        EmbeddingMetrics(runtime.metrics, models),
        runtime.stopping,
    )
    runtime.on_stop(embedder.close)
    await embedder.reconcile()
    if models.is_stored:
        await models.load()
    else:
        runtime.spawn("embedding model", models.load)

    async def forget_tokens() -> None:
        await database.write(lambda c: forget_expired(c, runtime.clock.now()))

    runtime.spawn("embedder", embedder.run)
    runtime.every("stale uploads", SWEEP_SECONDS, embedder.sweep)
    runtime.every("seen tokens", SWEEP_SECONDS, forget_tokens)
    add_EmbeddingServiceServicer_to_server(
        EmbeddingServicer(runtime, database, vectors, models, embedder), runtime.server
    )


SERVICE = ServiceDefinition(
    name="embedding",
    port=PORTS["embedding"],
    settings_type=EmbeddingSettings,
    grpc_service="evalpool.embedding.v1.EmbeddingService",
    build=build,
)
