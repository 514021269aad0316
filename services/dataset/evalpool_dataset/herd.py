"""The herd, asked over the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum

import grpc

from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_dataset.choice_scores import ChoiceScores
from evalpool_dataset.inquiry import Asked
from evalpool_dataset.outcome import Outcome
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.replies import Replies
from evalpool_dataset.store.definitions import Model

LOOK_UP_SECONDS = 30.0


class Work(StrEnum):
    """What the herd has a model of its own for."""

    CHAT = "chat"
    JUDGE = "judge"


class Herd:
    """The router, as the dataset service sees it.

    Args:
        stub: The router.
        router_address: Its address: what answers for models.
        choice_scores: Has choices scored.
        replies: Has replies written and marked.
    """

    def __init__(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        router_address: str,
        choice_scores: ChoiceScores,
        replies: Replies,
    ) -> None:
        self._stub = stub
        self._router_address = router_address
        self._choice_scores = choice_scores
        self._replies = replies

    async def find_model(self, digest: str) -> Model | None:
        """The model with a digest; None where neither catalogue nor repository has it."""
        try:
            response = await self._stub.GetModel(
                router_pb2.GetModelRequest(model=digest), timeout=LOOK_UP_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        found = response.model
        return Model(
            id=0,
            name=found.name,
            inference_process=self._router_address,
            digest=found.digest,
            source=found.source,
            owner=found.owner,
            size_bytes=found.size_bytes,
        )

    async def default_model(self, work: Work) -> str:
        """The digest of the model that the herd chats or judges with where a call names none."""
        response = await self._stub.GetInfo(router_pb2.GetInfoRequest(), timeout=LOOK_UP_SECONDS)
        return (response.chat_model if work is Work.CHAT else response.judge_model).digest

    async def evaluate(
        self, evaluator: Evaluator, subject: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number.

        Raises:
            CallEnded: The herd ended the call before every question had its outcome.
        """
        if evaluator is Evaluator.LOGLIKELIHOOD:
            outcomes = self._choice_scores.ask(subject, asked, reference)
        else:
            outcomes = self._replies.ask(subject, asked, reference)
        async for outcome in outcomes:
            yield outcome
