"""The embedding service's own metrics, beside those that every service has."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from evalpool_embedding.model_source import ModelSource


class EmbeddingMetrics:
    """What becomes of documents. Searches are among the calls that every service counts."""

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
        loaded = Gauge(
            "evalpool_embedding_model_loaded",
            "1 where the model is in memory, 0 while it is being fetched.",
            registry=registry,
        )
        loaded.set_function(lambda: float(models.dimensions > 0))
