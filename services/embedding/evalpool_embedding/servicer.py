"""EmbeddingService over gRPC: unpack, call the domain, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceServicer
from evalpool.values import Fields, parse_integer
from evalpool_embedding.documents import (
    DEFAULT_TOP_K,
    MAX_TOP_K,
    content_digest,
    parse_alias,
    parse_content,
    parse_documents,
    parse_meta,
)
from evalpool_embedding.embedder import Embedder
from evalpool_embedding.messages import (
    listed,
    result_message,
    set_message,
    struct_values,
    vector_messages,
)
from evalpool_embedding.model_source import ModelSource
from evalpool_embedding.search import Search
from evalpool_embedding.sets import Content
from evalpool_embedding.settings import EmbeddingSettings
from evalpool_embedding.store import sets
from evalpool_embedding.upload import receive
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime

MAX_TEXTS = 256
MAX_PAGE = 1000
DEFAULT_PAGE = 100

CREATE_SECONDS = 30.0
"""How long CreateDataset waits at most for its set to be ready."""

_LIST_METHOD = "ListDatasets"


class EmbeddingServicer(EmbeddingServiceServicer):
    """The service's methods.

    Args:
        runtime: What the service runs on.
        database: Its database.
        models: Its model.
        embedder: Embeds what is created.
        search: Looks sets up and searches them.
    """

    def __init__(
        self,
        runtime: Runtime[EmbeddingSettings],
        database: Database,
        models: ModelSource,
        embedder: Embedder,
        search: Search,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._models = models
        self._embedder = embedder
        self._search = search

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        """Who this server is, and its model."""
        return pb.GetInfoResponse(
            info=self._runtime.service_info(),
            model=self._models.name,
            model_digest=self._models.digest,
            dimensions=self._models.dimensions,
        )

    async def CreateDataset(
        self, request: pb.CreateDatasetRequest, context: Any
    ) -> pb.CreateDatasetResponse:
        """Keep a set, and wait a while for it to be embedded."""
        owner = current_call().address
        fields = Fields()
        alias = fields.parse("hash", parse_alias, request.hash)
        documents = parse_documents(fields, listed(request.list))
        fields.check()
        digest = await asyncio.to_thread(content_digest, documents)

        def create(connection: Connection) -> pb.CreateDatasetResponse:
            named, existed = sets.create(
                connection, owner, alias, digest, documents, self._models.digest, self._now()
            )
            return pb.CreateDatasetResponse(dataset=set_message(named), existed=existed)

        response = await once(self._database, pb.CreateDatasetResponse, create)
        self._embedder.notify()
        async for named in self._embedder.progress(owner, alias, digest, _patience(context)):
            response.dataset.CopyFrom(set_message(named))
        return response

    async def UploadDataset(
        self, request_iterator: AsyncIterator[pb.UploadDatasetRequest], context: Any
    ) -> AsyncIterator[pb.UploadDatasetResponse]:
        """Keep a set that comes in pieces, and tell how far it is, until it is ready."""
        dataset = pb.DocumentSet()
        received = receive(
            self._database,
            self._runtime.clock,
            request_iterator,
            model_digest=self._models.digest,
            max_documents=self._runtime.settings.max_documents,
        )
        # Closed with this call, so that what a broken one brought is forgotten at once.
        async with aclosing(received):
            async for dataset in received:
                yield pb.UploadDatasetResponse(dataset=dataset)
        self._embedder.notify()
        async for named in self._embedder.progress(dataset.owner, dataset.hash, dataset.digest):
            dataset = set_message(named)
            yield pb.UploadDatasetResponse(dataset=dataset)
        if dataset.state == pb.DOCUMENT_SET_STATE_EMBEDDING and self._runtime.stopping.is_set():
            raise self._runtime.stopping_error()

    async def SearchPrompt(
        self, request: pb.SearchPromptRequest, context: Any
    ) -> pb.SearchPromptResponse:
        """The documents nearest to a prompt."""
        fields = Fields()
        name = fields.parse("dataset_hash", parse_alias, request.dataset_hash)
        prompt = fields.parse("prompt", parse_content, request.prompt)
        top_k = fields.attempt(
            "top_k",
            lambda: parse_integer(
                request.top_k, at_least=1, at_most=MAX_TOP_K, default=DEFAULT_TOP_K
            ),
        )
        where = fields.attempt("filter", lambda: parse_meta(struct_values(request.filter)))
        fields.check()
        caller = current_call().address
        found = await self._search.nearest(
            caller, name, prompt, top_k, where, of_anybody=self._is_dataset_service(caller)
        )
        return pb.SearchPromptResponse(
            results=[result_message(each.index, each.similarity, each.document) for each in found],
            model_digest=self._models.digest,
        )

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        """The vectors of texts."""
        fields = Fields()
        if not 1 <= len(request.texts) <= MAX_TEXTS:
            fields.refuse("texts", f"there are {len(request.texts)} texts; give 1 to {MAX_TEXTS}")
        for place, text in enumerate(request.texts):
            fields.parse(f"texts[{place}]", parse_content, text)
        fields.check()
        vectors = await self._models.encoder().encode(list(request.texts))
        return pb.EmbedResponse(
            vectors=vector_messages(vectors.tolist()), model_digest=self._models.digest
        )

    async def GetDataset(
        self, request: pb.GetDatasetRequest, context: Any
    ) -> pb.GetDatasetResponse:
        """One set."""
        fields = Fields()
        name = fields.parse("dataset_hash", parse_alias, request.dataset_hash)
        fields.check()
        caller = current_call().address
        named = await self._search.look_up(
            caller, name, of_anybody=self._is_dataset_service(caller)
        )
        return pb.GetDatasetResponse(dataset=set_message(named))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Any
    ) -> pb.ListDatasetsResponse:
        """The caller's sets, by name."""
        fields = Fields()
        size = fields.attempt(
            "page_size",
            lambda: parse_integer(
                request.page_size, at_least=1, at_most=MAX_PAGE, default=DEFAULT_PAGE
            ),
        )
        fields.check()
        owner = current_call().address
        pages = self._runtime.page_tokens
        after = pages.decode(_LIST_METHOD, owner, request.page_token)
        # One more than the page tells whether there is another page.
        found = await self._database.read(lambda c: sets.page(c, owner, after, size + 1))
        shown = found[:size]
        is_last = len(found) <= size
        return pb.ListDatasetsResponse(
            datasets=[set_message(named) for named in shown],
            next_page_token="" if is_last else pages.encode(_LIST_METHOD, owner, shown[-1].alias),
        )

    async def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, context: Any
    ) -> pb.DeleteDatasetResponse:
        """Delete one of the caller's sets."""
        fields = Fields()
        alias = fields.parse("hash", parse_alias, request.hash)
        fields.check()
        owner = current_call().address
        deleted: list[Content | None] = []

        def delete(connection: Connection) -> pb.DeleteDatasetResponse:
            # Only the last run of a transaction that is repeated counts.
            deleted[:] = [sets.delete_own(connection, owner, alias)]
            return pb.DeleteDatasetResponse()

        response = await once(self._database, pb.DeleteDatasetResponse, delete)
        for content in deleted:
            if content is not None:
                await self._embedder.drop(content)
        return response

    def _is_dataset_service(self, caller: str) -> bool:
        return bool(caller) and caller == self._runtime.settings.dataset_address

    def _now(self) -> datetime:
        return self._runtime.clock.now()


def _patience(context: Any) -> float:
    """How long to wait, so that the answer is still in time."""
    remaining = context.time_remaining()
    return CREATE_SECONDS if remaining is None else min(CREATE_SECONDS, 0.8 * remaining)
