"""The server's one interceptor: context and log, metrics, identity, access, errors, in this order.

It is one and not five because each layer of interception costs a coroutine a call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc import aio

from evalpool_runtime.call import set_current_call
from evalpool_runtime.error_status import as_domain_error, status_of
from evalpool_runtime.errors import DomainError, Internal, reasons
from evalpool_runtime.gatekeeper import Gatekeeper
from evalpool_runtime.metrics import GrpcMetrics, MethodMetrics

REQUEST_ID_HEADER = "x-request-id"


class Interceptor(aio.ServerInterceptor):
    """Wraps every method of a server."""

    def __init__(self, gatekeeper: Gatekeeper, metrics: GrpcMetrics) -> None:
        self._gatekeeper = gatekeeper
        self._metrics = metrics
        # Bound: an unbound one is made anew at every call.
        self._log = structlog.get_logger("evalpool.call").bind()
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._in_flight = 0
        self._none_in_flight = asyncio.Event()
        self._none_in_flight.set()

    async def drained(self, seconds: float) -> bool:
        """Wait until no handler is at work; False where one still is after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._none_in_flight.wait()
        except TimeoutError:
            return False
        return True

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap one method's handler."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        kind = _kind(handler)
        wrap = self._wrap_stream if handler.response_streaming else self._wrap_unary
        behaviour = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        make = {
            "unary": grpc.unary_unary_rpc_method_handler,
            "server_stream": grpc.unary_stream_rpc_method_handler,
            "client_stream": grpc.stream_unary_rpc_method_handler,
            "bidi_stream": grpc.stream_stream_rpc_method_handler,
        }[kind]
        service, _, name = method.lstrip("/").partition("/")
        return make(
            wrap(method, self._metrics.of(kind, service, name), behaviour),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap_unary(self, method: str, metrics: MethodMetrics, behaviour: Any) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            async with self._serving(method, metrics, request, context):
                return await behaviour(request, context)

        return serve

    def _wrap_stream(self, method: str, metrics: MethodMetrics, behaviour: Any) -> Any:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._serving(method, metrics, request, context):
                result = behaviour(request, context)
                if not hasattr(result, "__aiter__"):  # it writes to the context itself
                    await result
                    return
                # Closed with this one: a caller that goes away must reach the domain at once.
                async with aclosing(result):
                    async for response in result:
                        yield response

        return serve

    @asynccontextmanager
    async def _serving(
        self, method: str, metrics: MethodMetrics, request: Any, context: Any
    ) -> AsyncIterator[None]:
        metadata = _metadata(context)
        request_id = metadata.get(REQUEST_ID_HEADER, "")[:64] or _new_id()
        begun = time.monotonic()
        code = "OK"
        caller = ""
        metrics.started.inc()
        metrics.in_flight.inc()
        self._in_flight += 1
        self._none_in_flight.clear()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            call = self._gatekeeper.admit(method, metadata)
            call.request_id = request_id
            if isinstance(request, Message):
                call.request = request
            caller = call.address
            set_current_call(call)
            yield
        except (asyncio.CancelledError, GeneratorExit):
            left = context.time_remaining()
            code = "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"
            raise
        except aio.AbortError:
            code = context.code().name if context.code() else "UNKNOWN"
            raise
        except Exception as error:
            refusal = as_domain_error(error) or self._unforeseen(error, method)
            status = status_of(refusal)
            code = status.code.name
            await context.abort_with_status(status)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._none_in_flight.set()
            metrics.in_flight.dec()
            metrics.handled(code).inc()
            seconds = time.monotonic() - begun
            metrics.seconds.observe(seconds)
            if not method.startswith("/grpc."):
                self._log.debug(
                    "call", method=method, code=code, caller=caller, seconds=round(seconds, 6)
                )

    def _unforeseen(self, error: Exception, method: str) -> DomainError:
        # The caller gets an id to tell us, and nothing else: the text may hold anything.
        error_id = _new_id()
        self._log.error("call failed", method=method, error_id=error_id, exc_info=error)
        return Internal(
            reasons.ERROR_REASON_INTERNAL,
            f"the service failed; tell its operator the error id {error_id}",
            error_id=error_id,
        )


def _new_id() -> str:
    """An id that tells calls apart in the log; it need not be hard to guess."""
    return f"{random.getrandbits(128):032x}"


def _metadata(context: Any) -> dict[str, str]:
    return {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }


def _kind(handler: grpc.RpcMethodHandler[Any, Any]) -> str:
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return "unary"
        case False, True:
            return "server_stream"
        case True, False:
            return "client_stream"
        case _:
            return "bidi_stream"
