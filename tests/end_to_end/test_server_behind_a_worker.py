"""A worker before an OpenAI-compatible server, in a herd: a real router, worker and server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_router.service import SERVICE as ROUTER
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_worker.service import SERVICE as WORKER
from tests.end_to_end.conftest import SMOLLM2
from tests.worker.engine.llama_cpp_server import llama_cpp_python_server

if TYPE_CHECKING:
    Stub = router_pb2_grpc.RouterServiceAsyncStub

DIGEST = find_model(SMOLLM2).sha256 or ""


@pytest.fixture
async def router(tmp_path: Path, smollm2_path: Path) -> AsyncIterator[ServiceUnderTest]:
    """A router with one worker, which asks llama-cpp-python's server."""
    key = Identity.generate()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(llama_cpp_python_server(smollm2_path, tmp_path / "log"))
        router = await stack.enter_async_context(
            running(ROUTER, tmp_path / "router", admitted_workers=key.address)
        )
        await stack.enter_async_context(
            running(
                WORKER,
                tmp_path / "worker",
                identity=key,
                router_endpoint=router.endpoint,
                router_address=router.address,
                engine="openai",
                openai_url=server.settings.url,
                openai_model=server.settings.model,
                openai_dialect=server.settings.dialect,
                openai_key=server.settings.key,
                openai_digest=DIGEST,
            )
        )
        yield router


async def test_the_herd_chats_through_it_and_offers_no_scoring(router: ServiceUnderTest) -> None:
    async with router.channel(router.operator) as channel:
        stub: Stub = router_pb2_grpc.RouterServiceStub(channel)
        request = inference_pb2.InferRequest(
            model=inference_pb2.ModelReference(digest=DIGEST),
            chat=inference_pb2.Chat(
                messages=[inference_pb2.ChatMessage(role="user", content="Name a colour.")]
            ),
            sampling=inference_pb2.Sampling(max_tokens=8),
        )
        # The router takes an answer only where build and digest are those of the registration.
        async with asyncio.timeout(60):
            *chunks, end = [message async for message in stub.Infer(request)]
        assert "".join(message.chunk.text for message in chunks).strip()
        origin = end.complete.provenance
        assert (origin.model_digest, origin.vouched) == (DIGEST, True)

        [worker] = (await stub.ListWorkers(router_pb2.ListWorkersRequest())).workers
        assert set(worker.kinds) == {router_pb2.WORKER_KIND_CHAT, router_pb2.WORKER_KIND_JUDGE}
        assert list(worker.models) == [DIGEST]


async def test_the_herd_judges_through_it(router: ServiceUnderTest) -> None:
    async with router.channel(router.operator) as channel:
        stub: Stub = router_pb2_grpc.RouterServiceStub(channel)
        request = router_pb2.EvaluateRequest(
            model=inference_pb2.ModelReference(digest=DIGEST),
            question="What is two and two?",
            expected_response="Four.",
            response="Four.",
        )
        graded = await stub.Evaluate(request, timeout=60)
        assert 0 <= graded.score <= 10
        assert graded.provenance.vouched
