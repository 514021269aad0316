"""The dataset service's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class DatasetMetrics:
    """Counts what is loaded and evaluated."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loaded = Counter(
            "evalpool_dataset_questions_loaded_total", "Questions loaded.", registry=registry
        )
        self._outcomes = Counter(
            "evalpool_dataset_outcomes_total",
            "What became of questions asked of the herd.",
            ["outcome"],
            registry=registry,
        )

    def loaded(self, questions: int) -> None:
        """Count loaded questions."""
        self._loaded.inc(questions)

    def outcome(self, kind: str, number: int = 1) -> None:
        """Count outcomes: "answered" or "unanswered"."""
        self._outcomes.labels(kind).inc(number)
