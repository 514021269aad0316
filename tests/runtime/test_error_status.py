"""Domain exceptions as statuses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from evalpool.channel import MAX_METADATA_BYTES
from evalpool.values import InvalidFields, InvalidValue, Violation
from evalpool_runtime import error_status, errors
from evalpool_runtime.error_status import CODES, as_domain_error, status_of
from evalpool_runtime.errors import DomainError, reasons


def domain_errors() -> list[type[DomainError]]:
    found: list[type[DomainError]] = []
    pending = DomainError.__subclasses__()
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending += kind.__subclasses__()
    return found


def details(error: DomainError) -> status_pb2.Status:
    ((key, value),) = status_of(error).trailing_metadata or ()
    assert key == "grpc-status-details-bin"
    return status_pb2.Status.FromString(value)


def unpacked(status: status_pb2.Status, kind: Any) -> list[Any]:
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


def size(error: DomainError) -> int:
    """Bytes in the trailers: percent-encoded sentence, base64 details."""
    status = status_of(error)
    ((_, value),) = status.trailing_metadata or ()
    return 3 * len((status.details or "").encode()) + len(value) * 4 // 3


def test_every_domain_error_has_a_code() -> None:
    for kind in domain_errors():
        assert any(each in CODES for each in kind.__mro__), kind


def test_no_two_of_the_runtimes_errors_share_a_code() -> None:
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("kind", [k for k in CODES if k is not errors.InvalidRequest])
def test_a_status_has_the_code_the_sentence_and_one_error_info(kind: type[DomainError]) -> None:
    error = kind(reasons.ERROR_REASON_TOKEN_EXPIRED, "no – never", thing="x")
    status = status_of(error)
    inner = details(error)

    assert status.code is CODES[kind]
    assert status.details == "no – never" == inner.message
    assert inner.code == code_pb2.Code.Value(CODES[kind].name)
    (info,) = unpacked(inner, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "TOKEN_EXPIRED",
        "evalpool",
        {"thing": "x"},
    )
    assert not unpacked(inner, error_details_pb2.RetryInfo)


def test_a_subclass_has_its_parents_code() -> None:
    class Empty(errors.NotFound):
        pass

    error = Empty(reasons.ERROR_REASON_INVALID_FIELD, "no")
    assert status_of(error).code is grpc.StatusCode.NOT_FOUND


def test_fields_in_violation_are_listed() -> None:
    error = errors.InvalidRequest([Violation("a.b[0]", "it is 5"), Violation("c", "it is empty")])
    (bad,) = unpacked(details(error), error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("a.b[0]", "it is 5"),
        ("c", "it is empty"),
    ]
    assert error.message == "a.b[0]: it is 5; c: it is empty"


@pytest.mark.parametrize("seconds", [0.0, 0.25, 3600.0])
def test_a_delay_travels_as_retry_info(seconds: float) -> None:
    error = errors.Unavailable(reasons.ERROR_REASON_UNAVAILABLE, "wait", retry_after=seconds)
    (retry,) = unpacked(details(error), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == seconds


@given(
    st.lists(st.tuples(st.text(), st.text()), max_size=30),
    st.integers(1, 400),
    st.integers(1, 200),
)
def test_however_many_violations_there_are_the_trailers_hold_them(
    some: list[tuple[str, str]], times: int, length: int
) -> None:
    violations = [Violation(f * length, d * length) for f, d in some] * times
    error = errors.InvalidRequest(violations)

    assert size(error) < MAX_METADATA_BYTES - 1024
    for bad in unpacked(details(error), error_details_pb2.BadRequest):
        shown = list(bad.field_violations)
        if shown[-1].description.endswith(" more fields break their rules"):
            rest = int(shown.pop().description.partition(" ")[0])
            assert len(shown) + rest == len(violations)
        else:
            assert len(shown) == len(violations)


def test_a_long_sentence_is_cut_between_characters() -> None:
    error = errors.NotFound(reasons.ERROR_REASON_INVALID_FIELD, "ü" * 10_000)
    text = status_of(error).details or ""
    assert text == "ü" * (error_status.MOST_MESSAGE_BYTES // 2) + "…"


def test_a_long_value_in_the_metadata_is_cut_so_that_the_trailers_hold_it() -> None:
    error = errors.NotFound(reasons.ERROR_REASON_INVALID_FIELD, "no", name="x" * MAX_METADATA_BYTES)
    (info,) = unpacked(details(error), error_details_pb2.ErrorInfo)
    assert info.metadata["name"] == "x" * error_status.MOST_FIELD_BYTES + "…"


def test_half_a_character_does_not_break_the_status() -> None:
    assert status_of(errors.NotFound(reasons.ERROR_REASON_INVALID_FIELD, "\ud800")).details == "?"


def test_what_stands_for_a_domain_error_is_one() -> None:
    refused = errors.NotFound(reasons.ERROR_REASON_INVALID_FIELD, "no")
    assert as_domain_error(refused) is refused
    fields = as_domain_error(InvalidFields([Violation("a", "b")]))
    assert isinstance(fields, errors.InvalidRequest)
    assert fields.violations == (Violation("a", "b"),)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        InvalidValue("of a field nobody named"),
        TimeoutError(),
        aio.AioRpcError(grpc.StatusCode.INTERNAL, aio.Metadata(), aio.Metadata()),
        aio.AioRpcError(grpc.StatusCode.NOT_FOUND, aio.Metadata(), aio.Metadata()),
    ],
)
def test_what_nobody_foresaw_is_none(error: Exception) -> None:
    assert as_domain_error(error) is None
