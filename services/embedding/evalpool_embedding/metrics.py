"""The embedding service's own metrics, beside those that every service has."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from evalpool_embedding.model_source import ModelSource

# From one short text on a fast core to a chunk of long ones on a busy one.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class EmbeddingMetrics:
    """What becomes of documents, and how long the parts of a search take.

    No label is by caller, set or prompt.
    """

    def __init__(self, registry: CollectorRegistry, models: ModelSource) -> None:
        self.documents = Counter(
            "evalpool_embedding_documents_total",
            "Documents whose vectors were computed and written.",
            registry=registry,
        )
        self.failures = Counter(
            "evalpool_embedding_failures_total",
            "Times that documents of a set could not be embedded.",
            registry=registry,
        )
        encode = Histogram(
            "evalpool_embedding_encode_seconds",
            "Time until a prompt had its vector (prompt), with its wait for those before it, or a "
            "chunk of a set had its vectors (set), in seconds.",
            ["what"],
            registry=registry,
            buckets=SECONDS,
        )
        self.prompt_seconds, self.set_seconds = encode.labels("prompt"), encode.labels("set")
        self.nearest_seconds = Histogram(
            "evalpool_embedding_nearest_seconds",
            "Time that Chroma took to find the vectors nearest to a prompt's, in seconds.",
            registry=registry,
            buckets=SECONDS,
        )
        loaded = Gauge(
            "evalpool_embedding_model_loaded",
            "1 where the model is in memory, 0 while it is being fetched.",
            registry=registry,
        )
        loaded.set_function(lambda: float(models.dimensions > 0))
