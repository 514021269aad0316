"""What the engine says of a question reaches the caller with its reason."""

from __future__ import annotations

import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool_worker.answers import provenance, question_result
from evalpool_worker.engine.base import ChoiceScore, FailureCause, QuestionFailure, QuestionResult
from evalpool_worker.engine.info import EngineInfo

ORIGIN = inference_pb2.Provenance(model_digest="ab" * 32, dispatch=7)


@pytest.mark.parametrize(
    ("cause", "reason", "retryable"),
    [
        (FailureCause.ENGINE, "ENGINE_FAILED", True),
        (FailureCause.UNLOADED, "UNAVAILABLE", True),
        (FailureCause.CONTEXT, "CONTEXT_TOO_LONG", False),
        (FailureCause.QUESTION, "INVALID_FIELD", False),
    ],
)
def test_a_failure_says_whose_fault_it_is(
    cause: FailureCause, reason: str, retryable: bool
) -> None:
    result = question_result(QuestionFailure("q", "Because.", cause), ORIGIN)
    assert result.id == "q"
    assert result.provenance == ORIGIN
    assert result.failure == inference_pb2.QuestionFailure(
        reason_code=reason, message="Because.", retryable=retryable
    )


@pytest.mark.parametrize(("scoring", "threads"), [(True, 6), (False, 4)])
def test_the_origin_tells_what_computed(scoring: bool, threads: int) -> None:
    info = EngineInfo(
        engine="llama_cpp",
        engine_build="build",
        model_digest="ab" * 32,
        model_description="llama 134M Q4_1",
        quantisation="Q4_1",
        parameters=134_000_000,
        model_bytes=10**8,
        n_vocab=49_152,
        n_ctx_train=8192,
        gpu_layers=31,
        score_contexts=3,
        score_threads=2,
        score_batch_tokens=256,
        score_context_tokens=2048,
        generate_threads=4,
        generate_batch_tokens=256,
        generate_context_tokens=4096,
        generate_slots=16,
    )
    origin = provenance(info, worker="w", generation=2, dispatch=7, scoring=scoring)
    assert origin == inference_pb2.Provenance(
        model_digest="ab" * 32,
        engine="llama_cpp",
        engine_build="build",
        worker="w",
        generation=2,
        dispatch=7,
        quantisation="Q4_1",
        gpu_layers=31,
        threads=threads,
        batch_tokens=256,
    )


def test_a_result_has_its_scores_and_what_it_took() -> None:
    scores = (ChoiceScore(-1.5, 2), ChoiceScore(-2.5, 3))
    result = question_result(QuestionResult("q", scores, 10, 13, 1.25, 2.5), ORIGIN)
    assert [(score.sum_logprob, score.tokens) for score in result.scores] == [(-1.5, 2), (-2.5, 3)]
    assert (result.usage.prompt_tokens, result.usage.computed_tokens) == (10, 13)
    assert (result.start_time.seconds, result.start_time.nanos) == (1, 250_000_000)
    assert not result.HasField("failure")
