"""Answers of inference: from the engine's values to the contract's messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from evalpool.inference.v1 import inference_pb2
from evalpool_runtime.errors import reason_name, reasons
from evalpool_runtime.protobuf import duration, timestamp
from evalpool_worker.engine.base import (
    FailureCause,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    QuestionFailure,
    QuestionResult,
    TokenLogprob,
)
from evalpool_worker.engine.info import EngineInfo

_FINISH = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: inference_pb2.FINISH_REASON_CANCELLED,
}
_REASONS = {
    FailureCause.ENGINE: reasons.ERROR_REASON_ENGINE_FAILED,
    FailureCause.UNLOADED: reasons.ERROR_REASON_UNAVAILABLE,
    FailureCause.CONTEXT: reasons.ERROR_REASON_CONTEXT_TOO_LONG,
    FailureCause.QUESTION: reasons.ERROR_REASON_INVALID_FIELD,
}


def provenance(
    info: EngineInfo, *, worker: str, generation: int, dispatch: int, scoring: bool
) -> inference_pb2.Provenance:
    """What gives an answer.

    Args:
        info: The engine's description of itself and its model.
        worker: The worker's address.
        generation: The worker's generation.
        dispatch: The router's number for the request.
        scoring: Whether scoring contexts answer, or the generating one.
    """
    return inference_pb2.Provenance(
        model_digest=info.model_digest,
        engine=info.engine,
        engine_build=info.engine_build,
        worker=worker,
        generation=generation,
        dispatch=dispatch,
        quantisation=info.quantisation,
        gpu_layers=info.gpu_layers,
        threads=info.score_contexts * info.score_threads if scoring else info.generate_threads,
        batch_tokens=info.score_batch_tokens if scoring else info.generate_batch_tokens,
        vouched=info.vouched,
    )


def question_result(
    outcome: QuestionResult | QuestionFailure, origin: inference_pb2.Provenance
) -> inference_pb2.QuestionResult:
    """What became of one question."""
    if isinstance(outcome, QuestionFailure):
        return inference_pb2.QuestionResult(
            id=outcome.id,
            failure=inference_pb2.QuestionFailure(
                reason_code=reason_name(_REASONS[outcome.cause]),
                message=outcome.reason,
                retryable=outcome.retriable,
            ),
            provenance=origin,
        )
    return inference_pb2.QuestionResult(
        id=outcome.id,
        scores=[
            inference_pb2.ChoiceScore(sum_logprob=score.sum_logprob, tokens=score.tokens)
            for score in outcome.scores
        ],
        provenance=origin,
        start_time=timestamp(datetime.fromtimestamp(outcome.started_at, UTC)),
        end_time=timestamp(datetime.fromtimestamp(outcome.finished_at, UTC)),
        usage=inference_pb2.Usage(
            prompt_tokens=outcome.prompt_tokens, computed_tokens=outcome.computed_tokens
        ),
    )


def generation_chunk(chunk: GenerationChunk) -> inference_pb2.InferChunk:
    """A piece of a text, with what is told of its tokens."""
    return inference_pb2.InferChunk(
        text=chunk.text,
        tokens=len(chunk.token_ids),
        logprobs=[
            inference_pb2.TokenLogprobs(
                chosen=_token_logprob(place.chosen),
                likeliest=[_token_logprob(token) for token in place.likeliest],
            )
            for place in chunk.logprobs
        ],
    )


def generation_end(
    end: GenerationEnd, origin: inference_pb2.Provenance
) -> inference_pb2.InferComplete:
    """The end of a generation that did not fail."""
    return inference_pb2.InferComplete(
        finish_reason=_FINISH[end.finish_reason],
        usage=inference_pb2.Usage(
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            computed_tokens=end.computed_tokens,
            queue_time=duration(timedelta(seconds=end.timings.queued)),
            prefill_time=duration(timedelta(seconds=end.timings.prefill)),
            decode_time=duration(timedelta(seconds=end.timings.decode)),
        ),
        provenance=origin,
    )


def _token_logprob(token: TokenLogprob) -> inference_pb2.TokenLogprob:
    return inference_pb2.TokenLogprob(
        token_id=token.token_id, piece=token.piece, text=token.text, logprob=token.logprob
    )
