"""What the worker's metrics say of a generation."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from evalpool_worker.engine.base import FinishReason, GenerationEnd, GenerationTimings
from evalpool_worker.metrics import WorkerMetrics


def ended(completion_tokens: int) -> CollectorRegistry:
    """The metrics after one generation: 1 s queued, 2 s of prompt, 6 s of text."""
    registry = CollectorRegistry()
    WorkerMetrics(registry, lambda: 0, lambda: 0).generation(
        GenerationEnd(
            finish_reason=FinishReason.STOP,
            prompt_tokens=100,
            completion_tokens=completion_tokens,
            timings=GenerationTimings(queued=1.0, prefill=2.0, decode=6.0),
            shared_tokens=64,
        )
    )
    return registry


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_tokens_total", 100),
        ("generation_tokens_total", 4),
        ("computed_tokens_total", 40),
        ("prefix_shared_tokens_total", 64),
        ("request_queue_seconds_sum", 1),
        ("request_prefill_seconds_sum", 2),
        ("time_to_first_token_seconds_sum", 3),
        ("request_decode_seconds_sum", 6),
        ("request_seconds_sum", 9),
        ("inter_token_seconds_sum", 2),
    ],
)
def test_a_generation_is_counted_and_timed(name: str, value: float) -> None:
    assert ended(4).get_sample_value(f"evalpool_worker_{name}") == value


def test_a_single_token_has_no_time_to_the_next() -> None:
    assert ended(1).get_sample_value("evalpool_worker_inter_token_seconds_count") == 0


def test_generations_are_counted_by_why_they_ended() -> None:
    name = "evalpool_worker_requests_finished_total"
    assert ended(4).get_sample_value(name, {"finish_reason": "stop"}) == 1
