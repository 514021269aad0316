"""The call that is being served: who makes it, and which content it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from google.protobuf.message import Message


@dataclass(slots=True)
class Call:
    """One call, as its handler sees it.

    Attributes:
        address: The caller's address; empty where a public method was called without a token.
        method: The full method, such as "/evalpool.token.v1.TokenService/Transfer".
        jti: The id of the bearer token; empty without one.
        expires: When the bearer token lapses.
        is_operator: Whether the caller is this service's operator.
        request: The request of a unary-request method.
        request_id: The id under which the call is logged.
    """

    address: str
    method: str
    jti: str = ""
    expires: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(minutes=5))
    is_operator: bool = False
    request: Message | None = None
    request_id: str = ""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the method and the request: what a repeat must match."""
        digest = hashlib.sha256(self.method.encode() + b"\0")
        if self.request is not None:
            digest.update(self.request.SerializeToString(deterministic=True))
        return digest.hexdigest()


_current: ContextVar[Call] = ContextVar("evalpool_call")


def current_call() -> Call:
    """The call that is being served.

    Raises:
        LookupError: No call is being served.
    """
    return _current.get()


def set_current_call(call: Call) -> None:
    """Set the call of the present task."""
    _current.set(call)


@contextmanager
def calling(
    address: str, *, method: str = "in-process", is_operator: bool = False
) -> Iterator[Call]:
    """Serve a block as a call by an address, for callers within the process."""
    call = Call(address=address, method=method, jti=uuid4().hex, is_operator=is_operator)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
