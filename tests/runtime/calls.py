"""Calls to the small service, and what its metrics say of them."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from evalpool.errors import CallError
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from tests.runtime.small_service import GRPC_SERVICE


async def balance(stub: token_pb2_grpc.TokenServiceAsyncStub, *metadata: tuple[str, str]) -> str:
    response = await stub.GetBalance(token_pb2.GetBalanceRequest(), metadata=metadata)
    return response.balance


async def refusal(call: Any) -> CallError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert error_infos(caught.value) == 1
    return CallError.of(caught.value)


def error_infos(error: aio.AioRpcError) -> int:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    return sum(d.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for d in status.details)


def handled(registry: CollectorRegistry, method: str, code: str, kind: str = "unary") -> float:
    return (
        registry.get_sample_value(
            "grpc_server_handled_total",
            {
                "grpc_type": kind,
                "grpc_service": GRPC_SERVICE,
                "grpc_method": method,
                "grpc_code": code,
            },
        )
        or 0.0
    )


def metric(registry: CollectorRegistry, name: str, method: str, kind: str = "unary") -> float:
    labels = {"grpc_type": kind, "grpc_service": GRPC_SERVICE, "grpc_method": method}
    return registry.get_sample_value(name, labels) or 0.0
