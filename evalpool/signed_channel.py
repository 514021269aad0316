"""A channel that signs calls as they are made.

It is used where the server's address is known. An interceptor of grpc.aio could wait for it, and
costs every call a task, and every message of a stream a way through it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
from grpc import aio

Authorise = Callable[[str], str]
"""Gives what `authorization` is to be for a method."""


class _SignedCalls:
    """The calls of one method."""

    def __init__(self, calls: Any, method: str, authorise: Authorise, deadline: float | None):
        self._calls = calls
        self._method = method
        self._authorise = authorise
        self._deadline = deadline

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Any:
        signed = aio.Metadata(*(metadata or ()))
        if signed.get("authorization") is None:
            signed.add("authorization", self._authorise(self._method))
        return self._calls(
            request,
            timeout=self._deadline if timeout is None else timeout,
            metadata=signed,
            **options,
        )


class SignedChannel(aio.Channel):
    """Signs the calls of another channel.

    Args:
        channel: Makes the calls.
        authorise: Gives a call's authorization.
        deadline: Seconds that a call with one answer may take, where the call itself names none.
        stream_deadline: The same for calls with a stream of answers.
    """

    def __init__(
        self,
        channel: aio.Channel,
        authorise: Authorise,
        deadline: float | None,
        stream_deadline: float | None,
    ) -> None:
        self._channel = channel
        self._authorise = authorise
        self._deadline = deadline
        self._stream_deadline = stream_deadline

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls with one request and one answer."""
        calls = self._channel.unary_unary(method, *args, **options)
        return _SignedCalls(calls, method, self._authorise, self._deadline)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls with a stream of requests and one answer."""
        calls = self._channel.stream_unary(method, *args, **options)
        return _SignedCalls(calls, method, self._authorise, self._deadline)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls with one request and a stream of answers."""
        calls = self._channel.unary_stream(method, *args, **options)
        return _SignedCalls(calls, method, self._authorise, self._stream_deadline)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Calls with streams both ways."""
        calls = self._channel.stream_stream(method, *args, **options)
        return _SignedCalls(calls, method, self._authorise, self._stream_deadline)

    async def __aenter__(self) -> SignedChannel:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self._channel.__aexit__(exc_type, exc_val, exc_tb)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the connection is."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connection is otherwise than it was."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until there is a connection."""
        await self._channel.channel_ready()
