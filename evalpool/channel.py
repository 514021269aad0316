"""Channels that sign every call.

`open_channel` gives an ordinary `grpc.aio.Channel`; each call on it carries a fresh bearer token
for the server's address, so that a retry by the caller is a new call and a retry by the transport
is the same one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from grpc import aio

from evalpool.identity import Identity

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024

# Safe for mutations too: the transport's retry carries the same jti, which the server remembers.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


def channel_options(*, retries: bool = True) -> Sequence[tuple[str, str | int]]:
    """The options of every channel."""
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.lb_policy_name", "round_robin"),
        # Errors that list many bad rows travel in the trailers.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]
    if retries:
        options.append(("grpc.service_config", _SERVICE_CONFIG))
    else:
        options.append(("grpc.enable_retries", 0))
    return options


class _Signer:
    """Adds the bearer token to a call's metadata."""

    def __init__(self, identity: Identity, audience: str) -> None:
        self._identity = identity
        self._audience = audience

    def sign(self, details: aio.ClientCallDetails) -> aio.ClientCallDetails:
        metadata = aio.Metadata(*(details.metadata or ()))
        if all(key != "authorization" for key, _ in metadata):
            metadata.add("authorization", f"Bearer {self._identity.token(self._audience)}")
        return aio.ClientCallDetails(
            method=details.method,
            timeout=details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


# aio tells interceptors apart by class, and a class can be only one of the four.
class _UnaryUnary(_Signer, aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(self.sign(client_call_details), request)


class _UnaryStream(_Signer, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(self.sign(client_call_details), request)


class _StreamUnary(_Signer, aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(  # type: ignore[no-untyped-def]
        self, continuation, client_call_details, request_iterator
    ):
        return await continuation(self.sign(client_call_details), request_iterator)


class _StreamStream(_Signer, aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(  # type: ignore[no-untyped-def]
        self, continuation, client_call_details, request_iterator
    ):
        return await continuation(self.sign(client_call_details), request_iterator)


def open_channel(
    endpoint: str, identity: Identity | None = None, audience: str = "", *, retries: bool = True
) -> aio.Channel:
    """Open a channel to a server.

    Args:
        endpoint: Where the server is, such as "127.0.0.1:50051".
        identity: Who calls. None: calls go without a token, for public methods.
        audience: The server's address.
        retries: Try a call again, within its deadline, where the server was not reached.
    """
    interceptors: list[aio.ClientInterceptor] = []
    if identity is not None:
        for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream):
            interceptors.append(kind(identity, audience))
    return aio.insecure_channel(
        endpoint, options=channel_options(retries=retries), interceptors=interceptors
    )


__all__ = ["MAX_MESSAGE_BYTES", "MAX_METADATA_BYTES", "channel_options", "open_channel"]
