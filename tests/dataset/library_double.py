"""An embedding service that yields what it is told, and misbehaves on request."""

from __future__ import annotations

from typing import Any, Self

import grpc
from grpc import aio

from evalpool.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from evalpool.identity import Identity
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import SystemClock
from tests.dataset.router_double import fail


class LibraryDouble(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Document sets, as the dataset service asks for them.

    Attributes:
        identity: Its key.
        sets: The sets by their digests: the owner, and the documents, nearest first.
        embedding: Digests of sets that are not embedded yet.
        model: The digest of its model.
        searches_with: The digest of the model that it searches with; empty for its model.
        refusals: What the next searches are refused with: code and reason.
        searched: Requests of SearchPrompt that came.
        callers: Addresses that called.
    """

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.sets: dict[str, tuple[str, list[str]]] = {}
        self.embedding: set[str] = set()
        self.model = "m" * 64
        self.searches_with = ""
        self.refusals: list[tuple[grpc.StatusCode, str]] = []
        self.searched: list[embedding_pb2.SearchPromptRequest] = []
        self.callers: set[str] = set()
        self.endpoint = ""
        self._server = aio.server()
        self._authenticator = Authenticator(self.identity.address, SystemClock())

    @classmethod
    def empty(cls) -> Self:
        """A double without sets; what it does not implement is not called."""
        return cls()

    async def __aenter__(self) -> Self:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._server.stop(None)

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Any
    ) -> embedding_pb2.GetInfoResponse:
        return embedding_pb2.GetInfoResponse(model_digest=self.model)

    async def GetDataset(
        self, request: embedding_pb2.GetDatasetRequest, context: Any
    ) -> embedding_pb2.GetDatasetResponse:
        self._note_caller(context)
        owner, documents = await self._set(request.dataset_hash, context)
        ready = request.dataset_hash not in self.embedding
        return embedding_pb2.GetDatasetResponse(
            dataset=embedding_pb2.DocumentSet(
                hash="facts",
                digest=request.dataset_hash,
                owner=owner,
                state=embedding_pb2.DOCUMENT_SET_STATE_READY
                if ready
                else embedding_pb2.DOCUMENT_SET_STATE_EMBEDDING,
                document_count=len(documents),
                embedded_count=len(documents) if ready else 0,
                model_digest=self.model,
            )
        )

    async def SearchPrompt(
        self, request: embedding_pb2.SearchPromptRequest, context: Any
    ) -> embedding_pb2.SearchPromptResponse:
        self._note_caller(context)
        self.searched.append(request)
        if self.refusals:
            await fail(context, *self.refusals.pop(0))
        _, documents = await self._set(request.dataset_hash, context)
        return embedding_pb2.SearchPromptResponse(
            model_digest=self.searches_with or self.model,
            results=[
                embedding_pb2.SearchResult(content=content, index=place)
                for place, content in enumerate(documents[: request.top_k])
            ],
        )

    async def _set(self, digest: str, context: Any) -> tuple[str, list[str]]:
        if digest not in self.sets:
            await fail(context, grpc.StatusCode.NOT_FOUND, "DOCUMENT_SET_NOT_FOUND")
        return self.sets[digest]

    def _note_caller(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        token = self._authenticator.verify(metadata["authorization"].removeprefix("Bearer "))
        self.callers.add(token.address)
