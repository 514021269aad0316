"""Channels that sign every call.

`open_channel` gives an ordinary `grpc.aio.Channel`; each call on it carries a bearer token for the
server's address. A call with an effect has a fresh one, so that a retry by the caller is a new call
and a retry by the transport is the same one; methods that the contract marks as free of side
effects share one for a while.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc import aio

from evalpool.identity import Identity
from evalpool.signed_channel import SignedChannel

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


def channel_options(
    *, retries: bool = True, own_connection: bool = False
) -> Sequence[tuple[str, str | int]]:
    """The options of every channel; see `open_channel`."""
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # gRPC has a timer of its own for pings, a minute unless told; the shorter one decides.
        ("grpc.http2.ping_timeout_ms", 10_000),
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
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    return options


Audience = str | Callable[[], Awaitable[str]]
"""A server's address, or what finds it out at the first call."""


@functools.cache
def changes_nothing(method: str | bytes) -> bool:
    """Whether the contract marks a method as free of side effects.

    Args:
        method: As gRPC names it, such as "/evalpool.token.v1.TokenService/GetBalance".
    """
    path = method.decode() if isinstance(method, bytes) else method
    name = path.removeprefix("/").replace("/", ".")
    try:
        found = descriptor_pool.Default().FindMethodByName(name)
    except KeyError:
        return False
    options: MethodOptions = found.GetOptions()
    return options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS


def _authorization(identity: Identity, audience: str, method: str | bytes) -> str:
    reusable = changes_nothing(method)
    return f"Bearer {identity.reusable_token(audience) if reusable else identity.token(audience)}"


class _Signer:
    """Adds the bearer token, and a deadline where the caller set none."""

    def __init__(
        self, identity: Identity, audience: Callable[[], Awaitable[str]], deadline: float | None
    ) -> None:
        self._identity = identity
        self._audience = audience
        self._deadline = deadline

    async def sign(self, details: aio.ClientCallDetails) -> aio.ClientCallDetails:
        metadata = aio.Metadata(*(details.metadata or ()))
        if all(key != "authorization" for key, _ in metadata):
            audience = await self._audience()
            metadata.add("authorization", _authorization(self._identity, audience, details.method))
        return aio.ClientCallDetails(
            method=details.method,
            timeout=details.timeout if details.timeout is not None else self._deadline,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


# aio tells interceptors apart by class, and a class can be only one of the four.
class _UnaryUnary(_Signer, aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(await self.sign(client_call_details), request)


class _UnaryStream(_Signer, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(await self.sign(client_call_details), request)


class _StreamUnary(_Signer, aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(  # type: ignore[no-untyped-def]
        self, continuation, client_call_details, request_iterator
    ):
        return await continuation(await self.sign(client_call_details), request_iterator)


class _StreamStream(_Signer, aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(  # type: ignore[no-untyped-def]
        self, continuation, client_call_details, request_iterator
    ):
        return await continuation(await self.sign(client_call_details), request_iterator)


def open_channel(
    endpoint: str,
    identity: Identity | None = None,
    audience: Audience = "",
    *,
    retries: bool = True,
    own_connection: bool = False,
    deadline: float | None = None,
    stream_deadline: float | None = None,
) -> aio.Channel:
    """Open a channel to a server.

    Args:
        endpoint: Where the server is, such as "127.0.0.1:50051".
        identity: Who calls. None: calls go without a token, for public methods.
        audience: The server's address, or what finds it out.
        retries: Try a call again, within its deadline, where the server was not reached.
        own_connection: Share none with other channels to the endpoint, nor their waiting after
            one that failed, as gRPC does unless told.
        deadline: Seconds that a call with one answer may take, where the call itself names none.
        stream_deadline: The same for calls with a stream of answers.
    """
    options = channel_options(retries=retries, own_connection=own_connection)
    if identity is None:
        return aio.insecure_channel(endpoint, options=options)
    if isinstance(audience, str):
        return SignedChannel(
            aio.insecure_channel(endpoint, options=options),
            functools.partial(_authorization, identity, audience),
            deadline,
            stream_deadline,
        )
    interceptors: list[aio.ClientInterceptor] = [
        _UnaryUnary(identity, audience, deadline),
        _StreamUnary(identity, audience, deadline),
        _UnaryStream(identity, audience, stream_deadline),
        _StreamStream(identity, audience, stream_deadline),
    ]
    return aio.insecure_channel(endpoint, options=options, interceptors=interceptors)


__all__ = ["MAX_MESSAGE_BYTES", "MAX_METADATA_BYTES", "Audience", "channel_options", "open_channel"]
