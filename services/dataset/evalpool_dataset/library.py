"""Document sets, as the dataset service sees them: the subjects of retrieval datasets."""

from __future__ import annotations

import grpc

from evalpool.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from evalpool_dataset.answers import problem_of
from evalpool_dataset.parts import RetrievalRules
from evalpool_dataset.problem import UNAVAILABLE, CallEnded, Problem
from evalpool_dataset.store.definitions import Model
from evalpool_runtime.errors import FailedPrecondition, Unavailable, reasons

SEARCH_SECONDS = 60.0

_NOT_CONFIGURED = (
    "the dataset service knows of no embedding service; its operator gives it "
    "--embedding-endpoint and --embedding-address"
)
_AWAY = "the embedding service cannot be asked now; send the call again"
_ANOTHER_MODEL = (
    "it was made with another embedding model than the embedding service has; ask its operator to "
    "bring that back, or make the dataset anew"
)


class Library:
    """Finds document sets, and what they hold nearest to a question.

    Args:
        stub: The embedding service, signed by the dataset service; None where it knows of none.
        address: The embedding service's address: what answers for document sets.
    """

    def __init__(
        self, stub: embedding_pb2_grpc.EmbeddingServiceAsyncStub | None, address: str
    ) -> None:
        self._stub = stub
        self._address = address

    async def embedder(self) -> str:
        """The digest of the embedding service's model.

        Raises:
            Unavailable: It cannot be asked.
        """
        if self._stub is None:
            raise _unavailable("retrieval", _NOT_CONFIGURED)
        try:
            response = await self._stub.GetInfo(
                embedding_pb2.GetInfoRequest(), timeout=SEARCH_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise _unavailable("retrieval", _AWAY) from error
        return response.model_digest

    async def find(self, digest: str, embedder: str) -> Model | None:
        """The document set with a digest, as what is evaluated; None where there is none.

        Args:
            digest: The digest.
            embedder: The model that its vectors are to be of.

        Raises:
            FailedPrecondition: It is still being embedded, or could not be.
            Unavailable: The embedding service cannot be asked, or has another model.
        """
        if self._stub is None:
            raise _unavailable("subject", _NOT_CONFIGURED)
        try:
            response = await self._stub.GetDataset(
                embedding_pb2.GetDatasetRequest(dataset_hash=digest), timeout=SEARCH_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _unavailable("subject", _AWAY) from error
        found = response.dataset
        if found.model_digest != embedder:
            raise _unavailable("version", _ANOTHER_MODEL)
        if found.state != embedding_pb2.DOCUMENT_SET_STATE_READY:
            raise FailedPrecondition(
                reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
                f"subject: {found.embedded_count} of {found.document_count} documents of the set "
                f"{found.hash} are embedded; name it when its state is ready",
                retry_after=1.0,
            )
        return Model(
            id=0,
            name=found.hash,
            inference_process=self._address,
            digest=found.digest,
            source="",
            owner=found.owner,
            size_bytes=0,
        )

    async def search(self, digest: str, prompt: str, rules: RetrievalRules) -> list[str]:
        """The documents of a set nearest to a prompt, nearest first.

        Raises:
            CallEnded: They cannot be had.
        """
        if self._stub is None:
            raise CallEnded(Problem(_NOT_CONFIGURED, UNAVAILABLE))
        try:
            response = await self._stub.SearchPrompt(
                embedding_pb2.SearchPromptRequest(
                    dataset_hash=digest, prompt=prompt, top_k=rules.top_k
                ),
                timeout=SEARCH_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            raise CallEnded(problem_of(error, "the embedding service")) from error
        if response.model_digest != rules.embedder:
            raise CallEnded(Problem(_ANOTHER_MODEL, UNAVAILABLE))
        return [result.content for result in response.results]


def _unavailable(field: str, why: str) -> Unavailable:
    return Unavailable(reasons.ERROR_REASON_UNAVAILABLE, f"{field}: {why}")
