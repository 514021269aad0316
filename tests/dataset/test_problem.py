"""Why questions have no answer, and what follows."""

from __future__ import annotations

import pytest

from evalpool.common.v1 import error_reason_pb2
from evalpool_dataset.problem import BROKEN, INTERRUPTED, Problem

FOLLOWS = {
    "waits": {
        "DEADLINE_EXCEEDED",
        "DOCUMENT_SET_NOT_READY",
        "NO_WORKER",
        "OVERLOADED",
        "QUEUE_FULL",
        "UNAVAILABLE",
        "WORKER_BUSY",
    },
    "unfunded": {"HOLD_REFUSED"},
    "worker_was_at_it": {"ENGINE_FAILED", "WORKER_LOST"},
    "subjects_fault": {
        "DIGEST_MISMATCH",
        "DOCUMENT_SET_NOT_FOUND",
        "INVALID_GGUF",
        "MODEL_LOAD_FAILED",
        "MODEL_NOT_FOUND",
    },
}
FOLLOWS["keeps_all_waiting"] = FOLLOWS["waits"] | FOLLOWS["unfunded"] | {"MODEL_FETCH_FAILED"}


@pytest.mark.parametrize("name", FOLLOWS)
def test_each_reason_has_the_consequence_that_it_is_to_have(name: str) -> None:
    names = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    codes = [code.removeprefix("ERROR_REASON_") for code in names]
    found = {code for code in ["", *codes] if getattr(Problem("", code), name)}
    assert found == FOLLOWS[name]


def test_what_is_interrupted_waits_and_what_broke_is_a_failure() -> None:
    assert INTERRUPTED.waits
    assert BROKEN.retryable
    assert not BROKEN.waits
    assert not BROKEN.worker_was_at_it
