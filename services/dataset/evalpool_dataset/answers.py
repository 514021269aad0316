"""What the router's messages and errors mean for a question's answer."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from evalpool.errors import CallError
from evalpool.inference.v1 import inference_pb2
from evalpool_dataset.problem import DEADLINE_EXCEEDED, ENGINE_FAILED, UNAVAILABLE, Problem

_REASONS_OF_CODES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
}
"""What the call itself says, where it ended without the router's word."""


def problem_of(error: grpc.aio.AioRpcError, whom: str = "the router") -> Problem:
    """Why a call ended with an error.

    Args:
        error: The error.
        whom: Who was called, for people.
    """
    call = CallError.of(error)
    return Problem(
        call.message if call.reason else f"{whom} gave no answer: {call.message}",
        call.reason or _REASONS_OF_CODES.get(call.code, ""),
        retryable=call.code is not grpc.StatusCode.INVALID_ARGUMENT,
        retry_after=call.retry_after,
    )


def waited_for(
    message: inference_pb2.ScoreChoicesResponse | inference_pb2.InferResponse,
) -> Problem | None:
    """What the questions of an open call wait for."""
    progress = message.progress
    return Problem(progress.stage, progress.reason_code) if progress.reason_code else None


def another_model(origin: inference_pb2.Provenance) -> Problem:
    """Of each question only a result by the model with the run's digest counts."""
    found = origin.model_digest or "without a digest"
    return Problem(f"the answer came from the model {found}", ENGINE_FAILED)


def provenance_document(origin: inference_pb2.Provenance) -> dict[str, Any]:
    """What gave an answer, as the run records it: nothing of the single dispatch."""
    document: dict[str, Any] = MessageToDict(origin, preserving_proto_field_name=True)
    for passing in ("dispatch", "generation", "worker"):
        document.pop(passing, None)
    return document
