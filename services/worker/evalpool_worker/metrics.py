"""The worker's metrics, after vLLM's meaning of them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from evalpool_worker.engine.base import GenerationEnd, QuestionFailure, QuestionResult

TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class WorkerMetrics:
    """Counts and times what the engines do."""

    def __init__(
        self, registry: CollectorRegistry, busy: Callable[[], int], loaded: Callable[[], int]
    ) -> None:
        running = Gauge(
            "evalpool_worker_requests_running", "Requests under way.", registry=registry
        )
        running.set_function(busy)
        models = Gauge("evalpool_worker_models_loaded", "Models in memory.", registry=registry)
        models.set_function(loaded)
        self._questions = Counter(
            "evalpool_worker_questions_total",
            "Questions scored, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "evalpool_worker_prompt_tokens_total", "Prompt tokens.", registry=registry
        )
        self._generated_tokens = Counter(
            "evalpool_worker_generation_tokens_total", "Tokens generated.", registry=registry
        )
        self._computed_tokens = Counter(
            "evalpool_worker_computed_tokens_total",
            "Tokens computed: prompt tokens that were not shared, and generated ones.",
            registry=registry,
        )
        self._shared_tokens = Counter(
            "evalpool_worker_prefix_shared_tokens_total",
            "Prompt tokens of generations that another had computed already.",
            registry=registry,
        )
        self._finished = Counter(
            "evalpool_worker_requests_finished_total",
            "Generations ended, by reason.",
            ["finish_reason"],
            registry=registry,
        )

        def seconds(name: str, what: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, f"{what}, in seconds.", registry=registry, buckets=buckets)

        self._queue = seconds(
            "evalpool_worker_request_queue_seconds",
            "From a generation's arrival to its first decode",
        )
        self._prefill = seconds(
            "evalpool_worker_request_prefill_seconds",
            "From a generation's first decode to its first token",
        )
        self._first_token = seconds(
            "evalpool_worker_time_to_first_token_seconds",
            "From a generation's arrival to its first token",
        )
        self._decode = seconds(
            "evalpool_worker_request_decode_seconds", "From a generation's first token to its last"
        )
        self._between_tokens = seconds(
            "evalpool_worker_inter_token_seconds",
            "From one token to the next, the mean of a generation",
            TOKEN_SECONDS,
        )
        self._request = seconds(
            "evalpool_worker_request_seconds", "From a generation's arrival to its end"
        )

    def question(self, outcome: QuestionResult | QuestionFailure) -> None:
        """Count a question."""
        if isinstance(outcome, QuestionFailure):
            self._questions.labels("failed").inc()
            return
        self._questions.labels("scored").inc()
        self._prompt_tokens.inc(outcome.prompt_tokens)
        self._computed_tokens.inc(outcome.computed_tokens)

    def generation(self, end: GenerationEnd) -> None:
        """Count a generation."""
        self._finished.labels(end.finish_reason.value).inc()
        self._prompt_tokens.inc(end.prompt_tokens)
        self._generated_tokens.inc(end.completion_tokens)
        self._computed_tokens.inc(end.computed_tokens)
        self._shared_tokens.inc(end.shared_tokens)
        timings = end.timings
        self._queue.observe(timings.queued)
        self._prefill.observe(timings.prefill)
        self._first_token.observe(timings.queued + timings.prefill)
        self._decode.observe(timings.decode)
        self._request.observe(timings.queued + timings.prefill + timings.decode)
        if end.completion_tokens > 1:
            self._between_tokens.observe(timings.decode / (end.completion_tokens - 1))
