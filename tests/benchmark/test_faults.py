"""Whose fault a failure is: every reason of the contract is decided on."""

from __future__ import annotations

import pytest

from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool_benchmark.faults import BUSY, FAULTS, Fault, fault_of, is_outage
from evalpool_runtime.errors import reason_name, reasons

OF_OTHER_CALLS = {
    reasons.ERROR_REASON_UNSPECIFIED,
    reasons.ERROR_REASON_INVALID_PAGE_TOKEN,
    reasons.ERROR_REASON_REQUEST_ID_REUSED,
    reasons.ERROR_REASON_TRANSFER_NOT_FOUND,
    reasons.ERROR_REASON_HOLD_NOT_FOUND,
    reasons.ERROR_REASON_HOLD_SETTLED,
    reasons.ERROR_REASON_SUPPLY_LIMIT,
    reasons.ERROR_REASON_POOL_NOT_FOUND,
    reasons.ERROR_REASON_POOL_CLOSED,
    reasons.ERROR_REASON_POOL_NOT_STARTED,
    reasons.ERROR_REASON_ENTRY_NOT_FOUND,
    reasons.ERROR_REASON_ALREADY_ENTERED,
    reasons.ERROR_REASON_ENTRY_LIMIT,
    reasons.ERROR_REASON_FUNDING_NOT_FOUND,
    reasons.ERROR_REASON_ENTRY_STATE,
    reasons.ERROR_REASON_POOL_NOT_ENDED,
    reasons.ERROR_REASON_INVALID_TAG,
    reasons.ERROR_REASON_UNKNOWN_ALLOCATION,
    reasons.ERROR_REASON_DATASET_EXISTS,
    reasons.ERROR_REASON_INVALID_ROWS,
    reasons.ERROR_REASON_WORKER_NOT_FOUND,
    reasons.ERROR_REASON_UPLOAD_QUOTA,
    reasons.ERROR_REASON_UPLOAD_OFFSET,
    reasons.ERROR_REASON_DOCUMENT_SET_EXISTS,
    reasons.ERROR_REASON_DOCUMENT_SET_ENTERED,
}
"""Reasons that no run and no submission can end with."""


def test_every_reason_is_decided_on_or_known_to_be_of_other_calls() -> None:
    assert not OF_OTHER_CALLS & set(FAULTS)
    assert OF_OTHER_CALLS | set(FAULTS) == set(ErrorReason.values())


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("INVALID_GGUF", Fault.SUBJECT),
        ("EVALUATOR_MISMATCH", Fault.SUBJECT),
        ("EVALUATION_FAILED", Fault.MACHINERY),
        ("HOLD_REFUSED", Fault.MACHINERY),
        ("DATASET_NOT_FOUND", Fault.MACHINERY),
        ("DOCUMENT_SET_NOT_FOUND", Fault.SUBJECT),
        ("DOCUMENT_SET_NOT_READY", Fault.UNKNOWN),
        ("CONTEXT_TOO_LONG", Fault.SUBJECT),
        ("UNAVAILABLE", Fault.MACHINERY),
        ("NEVER_HEARD_OF", Fault.UNKNOWN),
        ("", Fault.UNKNOWN),
    ],
)
def test_the_name_of_a_reason_tells_the_fault(code: str, fault: Fault) -> None:
    assert fault_of(code) is fault


@pytest.mark.parametrize("reason", sorted(OF_OTHER_CALLS))
def test_a_reason_of_another_call_is_of_unknown_fault(reason: ErrorReason.ValueType) -> None:
    assert fault_of(reason_name(reason)) is Fault.UNKNOWN


@pytest.mark.parametrize("code", ["UNAVAILABLE", "NO_WORKER", "DEADLINE_EXCEEDED"])
def test_a_herd_out_of_reach_or_without_a_worker_is_an_outage(code: str) -> None:
    assert is_outage(code)


@pytest.mark.parametrize(
    "code",
    ["", "NEVER_HEARD_OF", "DOCUMENT_SET_NOT_READY", *map(reason_name, sorted(BUSY))],
)
def test_a_herd_that_is_busy_or_at_the_run_is_no_outage(code: str) -> None:
    assert not is_outage(code)
