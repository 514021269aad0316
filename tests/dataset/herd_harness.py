"""The herd's client, put together as the service does it."""

from __future__ import annotations

from evalpool.embedding.v1 import embedding_pb2_grpc
from evalpool.router.v1 import router_pb2_grpc
from evalpool_dataset.choice_scores import ChoiceScores
from evalpool_dataset.grading import Grading
from evalpool_dataset.herd import Herd
from evalpool_dataset.library import Library
from evalpool_dataset.purse import Purse
from evalpool_dataset.replies import Replies
from evalpool_runtime.clock import SystemClock


def herd_of(
    stub: router_pb2_grpc.RouterServiceAsyncStub,
    router_address: str,
    documents: embedding_pb2_grpc.EmbeddingServiceAsyncStub | None = None,
) -> Herd:
    """A client of a router that is free, waiting for two replies at a time."""
    purse, clock = Purse(None, "payer", router_address), SystemClock()
    library = Library(documents, "")
    return Herd(
        stub,
        router_address,
        ChoiceScores(stub, purse, clock),
        Replies(stub, purse, clock, Grading(stub, purse, clock), library, concurrent=2),
    )
