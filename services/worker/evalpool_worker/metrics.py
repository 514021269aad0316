"""The worker's metrics, after vLLM's meaning of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from evalpool_worker.engine.base import (
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    QuestionFailure,
    QuestionResult,
)
from evalpool_worker.engine.errors import EngineError, InvalidParametersError
from evalpool_worker.model_host import Models
from evalpool_worker.slots import Slots

TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class WorkerMetrics:
    """Counts and times what the engines do. No label is by caller, request or prompt.

    Args:
        registry: Where the metrics are put.
        slots: The requests under way.
        models: What they are answered with.
    """

    def __init__(self, registry: CollectorRegistry, slots: Slots, models: Models) -> None:
        def gauge(name: str, what: str, read: Callable[[], float]) -> None:
            Gauge(name, what, registry=registry).set_function(read)

        gauge(
            "evalpool_worker_requests_running",
            "Requests under way, without those that wait.",
            lambda: max(slots.busy - slots.waiting - models.load_now.streams_waiting, 0),
        )
        waiting = Gauge(
            "evalpool_worker_requests_waiting",
            "Requests that wait: for their model to be fetched and loaded (model), or for a place "
            "among the running generations, with cells of the KV cache (room).",
            ["cause"],
            registry=registry,
        )
        waiting.labels("model").set_function(lambda: slots.waiting)
        waiting.labels("room").set_function(lambda: models.load_now.streams_waiting)
        gauge(
            "evalpool_worker_questions_running",
            "Questions that are being computed.",
            lambda: models.load_now.questions_running,
        )
        gauge(
            "evalpool_worker_questions_waiting",
            "Questions of the requests under way that no batch has taken yet.",
            lambda: models.load_now.questions_waiting,
        )
        gauge("evalpool_worker_models_loaded", "Models in memory.", lambda: len(models.loaded))
        gauge(
            "evalpool_worker_kv_cells",
            "Tokens that the KV caches of generations hold, of all loaded models.",
            lambda: models.load_now.kv_cells,
        )
        gauge(
            "evalpool_worker_kv_used_cells",
            "Those of them that running generations take; what several share counts for each.",
            lambda: models.load_now.kv_used_cells,
        )
        gauge(
            "evalpool_worker_kv_usage_ratio",
            "The part of the KV caches that running generations take, from 0 to 1.",
            lambda: _kv_usage(models),
        )
        registry.register(_ComputedTokens(models))
        self._questions = Counter(
            "evalpool_worker_questions_total",
            "Questions scored, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "evalpool_worker_prompt_tokens_total",
            "Prompt tokens of questions that were scored and of generations that ended.",
            registry=registry,
        )
        self._generated_tokens = Counter(
            "evalpool_worker_generation_tokens_total", "Tokens generated.", registry=registry
        )
        self._queried_tokens = Counter(
            "evalpool_worker_prefix_queried_tokens_total",
            "Prompt tokens of generations: another may have computed them already.",
            registry=registry,
        )
        self._shared_tokens = Counter(
            "evalpool_worker_prefix_shared_tokens_total",
            "Those of them that another had computed already.",
            registry=registry,
        )
        self._finished = Counter(
            "evalpool_worker_requests_finished_total",
            "Generations ended, by why: stop, length, cancelled (by the caller, its deadline or an "
            "unload), error.",
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

    async def counted(
        self, events: AsyncIterator[GenerationChunk | GenerationEnd]
    ) -> AsyncGenerator[GenerationChunk | GenerationEnd, None]:
        """Pass a generation on and count it, however it ends. Closing this closes it."""
        tokens = 0
        broken_off: FinishReason | None = FinishReason.CANCELLED
        try:
            async with aclosing(events):  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, GenerationEnd):
                        broken_off = None
                        self._ended(event)
                    else:
                        tokens += len(event.token_ids)
                    yield event
        except InvalidParametersError:
            # Refused before it began.
            broken_off = None
            raise
        except EngineError:
            broken_off = FinishReason.ERROR
            raise
        finally:
            if broken_off is not None:
                self._finished.labels(broken_off.value).inc()
                self._generated_tokens.inc(tokens)

    def _ended(self, end: GenerationEnd) -> None:
        self._finished.labels(end.finish_reason.value).inc()
        self._prompt_tokens.inc(end.prompt_tokens)
        self._generated_tokens.inc(end.completion_tokens)
        self._queried_tokens.inc(end.prompt_tokens)
        self._shared_tokens.inc(end.shared_tokens)
        timings = end.timings
        self._queue.observe(timings.queued)
        self._prefill.observe(timings.prefill)
        self._first_token.observe(timings.queued + timings.prefill)
        self._decode.observe(timings.decode)
        self._request.observe(timings.queued + timings.prefill + timings.decode)
        if end.completion_tokens > 1:
            self._between_tokens.observe(timings.decode / (end.completion_tokens - 1))


class _ComputedTokens(Collector):
    """Counts as the engines do: batch by batch, and what nobody waited for in the end too."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._most = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        # A model that goes is for a moment counted nowhere.
        self._most = max(self._most, self._models.computed_tokens)
        yield CounterMetricFamily(
            "evalpool_worker_computed_tokens_total",
            "Tokens computed: of prompts, those that were not shared, and generated ones.",
            value=self._most,
        )


def _kv_usage(models: Models) -> float:
    load = models.load_now
    return load.kv_used_cells / load.kv_cells if load.kv_cells else 0.0
