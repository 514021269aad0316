"""Processes of the router's benchmark: a worker that answers at once, a bare relay, and the router.

    python -m benchmarks.peers.router_parts worker KEY_FILE ROUTER_ADDRESS
    python -m benchmarks.peers.router_parts relay WORKER_ENDPOINT
    python -m benchmarks.peers.router_parts router DATA_DIR WORKER_ADDRESS

Each prints one line, its endpoint (the router also its address), and runs until its input ends.
What it logs goes to standard error, which the benchmark sends to a file as `evalpool up` does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from grpc import aio

from evalpool.channel import channel_options
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_router.service import SERVICE
from evalpool_runtime.garbage import collect_seldom
from evalpool_runtime.logs import configure_logging
from evalpool_runtime.testing import running

CHUNK = inference_pb2.InferChunk(text=" word", tokens=1)


class AnsweringWorker(worker_pb2_grpc.WorkerServiceServicer):
    """Sends `max_tokens` chunks and an end, and computes nothing."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        """Answer."""
        metadata = dict(context.invocation_metadata())
        chunk = inference_pb2.InferResponse(reference=request.reference, chunk=CHUNK)
        for _ in range(request.sampling.max_tokens):
            yield chunk
        yield inference_pb2.InferResponse(
            reference=request.reference,
            complete=inference_pb2.InferComplete(
                finish_reason=inference_pb2.FINISH_REASON_STOP,
                provenance=inference_pb2.Provenance(
                    model_digest=request.model.digest,
                    engine_build="bench",
                    worker=self._address,
                    generation=1,
                    dispatch=int(metadata.get("x-evalpool-dispatch", 0)),
                ),
            ),
        )


class Relay(worker_pb2_grpc.WorkerServiceServicer):
    """Passes every message on, and does nothing else."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        """Relay."""
        async for response in self._stub.Infer(request):
            yield response


async def _serve(servicer: Any) -> None:
    # Clients here keep connections alive by pings more often than gRPC's servers put up with.
    server = aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)],
    )
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _tell(f"127.0.0.1:{port}")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def _worker(key_file: str) -> None:
    address = Identity.load(Path(key_file)).address
    await _serve(AnsweringWorker(address))  # type: ignore[abstract]


async def _relay(endpoint: str) -> None:
    async with aio.insecure_channel(endpoint, options=channel_options(retries=False)) as channel:
        await _serve(Relay(worker_pb2_grpc.WorkerServiceStub(channel)))  # type: ignore[abstract]


async def _router(data_dir: str, worker: str) -> None:
    # As `evalpool serve` does: not every call is a line in the log, and garbage waits.
    configure_logging("router")
    settings: dict[str, Any] = {"admitted_workers": (worker,), "lease_seconds": 3600.0}
    async with running(SERVICE, Path(data_dir), **settings) as service:
        collect_seldom()
        _tell(f"{service.endpoint} {service.address}")
        await asyncio.to_thread(sys.stdin.read)


def _tell(line: str) -> None:
    print(line, flush=True)
    # Nobody reads on: the log must not fill the pipe.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "worker": _worker,
    "relay": _relay,
    "router": _router,
}

if __name__ == "__main__":
    # The loop that services run on.
    uvloop.run(ROLES[sys.argv[1]](*sys.argv[2:]))
