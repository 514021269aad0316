"""The embedding service: how it is put together."""

from __future__ import annotations

import asyncio
from functools import partial

from evalpool.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server
from evalpool.endpoints import PORTS
from evalpool_embedding.chroma import Chroma, ChromaServer, EmbeddedChroma
from evalpool_embedding.embedder import Embedder
from evalpool_embedding.metrics import EmbeddingMetrics
from evalpool_embedding.model_source import ModelSource, find_origin
from evalpool_embedding.search import Search
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
    origin = await asyncio.to_thread(
        find_origin, settings.models_dir, settings.model, settings.tokenizer
    )
    models = ModelSource(origin, settings.threads)
    runtime.on_stop(models.close)
    database = await runtime.open_database("evalpool_embedding.migrations")
    vectors = VectorIndex(await asyncio.to_thread(_open_chroma, runtime))
    runtime.on_stop(partial(asyncio.to_thread, vectors.close))
    metrics = EmbeddingMetrics(runtime.metrics, models)
    embedder = Embedder(database, vectors, models, runtime.clock, metrics, runtime.stopping)
    runtime.on_stop(embedder.close)
    await embedder.start()
    if models.is_here:
        await models.load()
    else:
        runtime.spawn("embedding model", models.load)

    async def forget_tokens() -> None:
        await database.write(lambda c: forget_expired(c, runtime.clock.now()))

    runtime.spawn("embedder", embedder.run)
    runtime.every("stale uploads", SWEEP_SECONDS, embedder.sweep)
    runtime.every("seen tokens", SWEEP_SECONDS, forget_tokens)
    search = Search(database, vectors, models, embedder, metrics, runtime.clock)
    add_EmbeddingServiceServicer_to_server(
        EmbeddingServicer(runtime, database, models, embedder, search), runtime.server
    )


def _open_chroma(runtime: Runtime[EmbeddingSettings]) -> Chroma:
    settings = runtime.settings
    if not settings.chroma_server:
        return EmbeddedChroma(settings.chroma_path or runtime.data_dir / "chroma")
    return ChromaServer(
        settings.chroma_server,
        runtime.identity.address,
        ssl=settings.chroma_ssl,
        header=settings.chroma_header,
    )


SERVICE = ServiceDefinition(
    name="embedding",
    port=PORTS["embedding"],
    settings_type=EmbeddingSettings,
    grpc_service="evalpool.embedding.v1.EmbeddingService",
    build=build,
)
