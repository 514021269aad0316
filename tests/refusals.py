"""How calls are refused: the code, exactly one ErrorInfo, and a sentence that names the field."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from joserfc import jwt

from evalpool.errors import CallError
from evalpool.identity import ALGORITHM, Identity


async def refusal(
    call: Awaitable[Any], code: grpc.StatusCode, reason: str, *fields: str
) -> CallError:
    """How a call is refused.

    Args:
        call: The call.
        code: The status code that it must get.
        reason: The reason in its one ErrorInfo.
        fields: The fields that its sentence must name, each with what is wrong and the remedy; none
            where it is no field that is wrong.
    """
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = CallError.of(raised.value)
    assert (error.code, error.reason) == (code, reason), error.message
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status is not None
    infos = [each for each in status.details if each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    assert "; " in error.message
    assert error.message.startswith(f"{fields[0]}: " if fields else "")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert [violation.field for violation in error.violations] == list(fields)
        assert all("; " in violation.description for violation in error.violations)
    return error


Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def forged(victim: Identity, server: str) -> str:
    """A token that names the victim's key and is signed by another."""
    now = int(time.time())
    claims = {"aud": server, "iat": now, "exp": now + 60, "jti": "0123456789abcdef"}
    header = {"alg": ALGORITHM, "jwk": victim.public_jwk}
    return jwt.encode(header, claims, Identity.generate()._key, algorithms=[ALGORITHM])


def _expired(victim: Identity, server: str) -> str:
    long_ago = time.time() - 3_600
    # A test may have its own clock for the keys of its people.
    return Identity(victim._key).token(server, now=lambda: long_ago)


BAD_CREDENTIALS: Mapping[str, Callable[[Identity, str], tuple[str, Metadata]]] = {
    "none": lambda victim, server: ("TOKEN_MISSING", ()),
    "another scheme": lambda victim, server: (
        "TOKEN_MISSING",
        (("authorization", "Basic bWU6bWU="),),
    ),
    "expired": lambda victim, server: ("TOKEN_EXPIRED", bearer(_expired(victim, server))),
    "for another server": lambda victim, server: (
        "TOKEN_FOR_ANOTHER_SERVER",
        bearer(victim.token(Identity.generate().address)),
    ),
    "signed by another key": lambda victim, server: (
        "TOKEN_INVALID",
        bearer(forged(victim, server)),
    ),
}
"""Credentials that no server takes for the victim's: the reason, and the metadata, by name."""
