"""Questions to the herd's chat model, one by one or as a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from evalpool.cli.answers import Answer, Screen
from evalpool.cli.failure import Failure, failure_of
from evalpool.cli.options import client_of
from evalpool.cli.payment import paying
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.client.conversation import BYTES_A_TOKEN, Conversation, Exchange, fitting
from evalpool.embedding.v1 import embedding_pb2
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2

ANSWER_TOKENS = 256
"""Tokens of an answer in a conversation, unless told otherwise."""

_CONTEXT_BYTES = 60 * 1024
"""What a question may be based on, within what RouterService.Chat takes."""


@dataclass(frozen=True, slots=True)
class ChatModel:
    """The model that answers.

    Attributes:
        reference: How the herd is told; None for the herd's choice.
        name: For people.
        context_tokens: Its context; 0 where unknown.
    """

    reference: inference_pb2.ModelReference | None = None
    name: str = ""
    context_tokens: int = 0


@dataclass(slots=True)
class ChatSession:
    """Asks questions.

    Attributes:
        screen: Where answers are shown.
        wallet: Who asks.
        sampling: How answers are written.
        model: The model's digest, name or file; empty for the herd's.
        context: What every answer is to be based on.
        documents: The document set that answers are based on; empty for none.
        top_k: How many of its documents at most.
        pay: Units to hold for each question; empty for none.
        hold: A hold that pays for the only question; empty for none.
        multiplier: What is offered to go first.
        conversation: What was said; None where each question stands for itself.
    """

    screen: Screen
    wallet: str
    sampling: inference_pb2.Sampling
    model: str = ""
    context: str = ""
    documents: str = ""
    top_k: int = 4
    pay: str = ""
    hold: str = ""
    multiplier: str = ""
    conversation: Conversation | None = None
    _answers: ChatModel | None = None

    async def choose(self, model: str) -> ChatModel:
        """Have a model answer from now on.

        Args:
            model: Its digest, name or file; empty for the herd's.

        Raises:
            Failure, grpc.aio.AioRpcError: There is none; the one before stays.
        """
        async with client_of(self.wallet) as client:
            self._answers = await _chat_model(client, model)
        self.model = model
        return self._answers

    async def ground(self, documents: str) -> embedding_pb2.DocumentSet:
        """Base answers on a document set from now on.

        Args:
            documents: Its name or digest.

        Raises:
            grpc.aio.AioRpcError: There is none; the one before stays.
        """
        async with client_of(self.wallet) as client:
            response = await client.embedding.GetDataset(
                embedding_pb2.GetDatasetRequest(dataset_hash=documents)
            )
        self.documents = documents
        return response.dataset

    async def answer(self, answer: Answer) -> None:
        """Get an answer, show it as it comes, and remember it.

        One that is broken off is remembered as far as it came.

        Args:
            answer: With the question; it is filled in.

        Raises:
            Failure, grpc.aio.AioRpcError: There is none.
        """
        try:
            async with client_of(self.wallet) as client:
                with self.screen.waiting():
                    await self._ask(client, answer)
            self.screen.end(answer)
        finally:
            if self.conversation is not None and answer.text:
                self.conversation.exchanges.append(Exchange(answer.question, answer.text))

    async def _ask(self, client: Client, answer: Answer) -> None:
        if self._answers is None:
            self._answers = await _chat_model(client, self.model)
        context = await self._based_on(client, answer)
        self.screen.used(answer)
        if self.conversation is not None and self._answers.context_tokens:
            room = self._answers.context_tokens - (self.sampling.max_tokens or ANSWER_TOKENS)
            self._forgot(self.conversation.shorten(answer.question, context, room))
        while not await self._tried(client, answer, context):
            self._forgot(1)

    async def _tried(self, client: Client, answer: Answer, context: str) -> bool:
        """Ask once; False where what was said before leaves no room, and less of it may."""
        try:
            async with paying(client, self.pay, self.hold) as answer.hold:
                async for event in self._events(client, answer, context):
                    if event.HasField("chunk"):
                        answer.text += event.chunk.text
                        self.screen.piece(event.chunk.text)
                    elif event.HasField("progress"):
                        self.screen.missing(event.progress.stage)
                    else:
                        answer.complete = event.complete
        except (grpc.aio.AioRpcError, Failure) as error:
            failure = failure_of(error)
            too_long = failure is not None and failure.reason == "CONTEXT_TOO_LONG"
            if too_long and self.conversation is not None and self.conversation.forget_oldest():
                return False
            raise
        return True

    def _events(
        self, client: Client, answer: Answer, context: str
    ) -> AsyncIterator[inference_pb2.InferResponse | router_pb2.ChatResponse]:
        model = None if self._answers is None else self._answers.reference
        if self.conversation is None:
            return aiter(
                client.router.Chat(
                    router_pb2.ChatRequest(
                        question=answer.question,
                        context=context,
                        model=model,
                        sampling=self.sampling,
                        hold=answer.hold,
                        multiplier=self.multiplier,
                    )
                )
            )
        request = inference_pb2.InferRequest(
            model=model,
            chat=self.conversation.asking(answer.question, context),
            sampling=self.sampling,
            hold=answer.hold,
            multiplier=self.multiplier,
        )
        if not request.sampling.HasField("max_tokens"):
            request.sampling.max_tokens = ANSWER_TOKENS
        return aiter(client.router.Infer(request))

    async def _based_on(self, client: Client, answer: Answer) -> str:
        """What the answer is to be based on: the caller's own words first, then what is found."""
        if not self.documents:
            return self.context
        response = await client.embedding.SearchPrompt(
            embedding_pb2.SearchPromptRequest(
                dataset_hash=self.documents, prompt=answer.question, top_k=self.top_k
            )
        )
        found = response.results
        room = (_CONTEXT_BYTES - len(self.context.encode())) // BYTES_A_TOKEN
        if self._answers is not None and self._answers.context_tokens:
            # The rest is for what was said, the question and the answer.
            room = min(room, self._answers.context_tokens // 2)
        kept = fitting([each.content for each in found], max(room, 0))
        answer.used = list(found[: len(kept)])
        return "\n\n".join(filter(None, (self.context, *kept)))

    def _forgot(self, exchanges: int) -> None:
        if exchanges:
            what = (
                "the oldest turn no longer fits"
                if exchanges == 1
                else (f"the {exchanges} oldest turns no longer fit")
            )
            self.screen.note(f"{what} the model's context, and left the conversation")


async def _chat_model(client: Client, model: str) -> ChatModel:
    if model:
        known = await model_digest(client, model)
    else:
        info = await client.router.GetInfo(router_pb2.GetInfoRequest())
        known = info.chat_model.digest or info.chat_model.name
    if not known:
        return ChatModel()
    found = (await client.router.GetModel(router_pb2.GetModelRequest(model=known))).model
    reference = inference_pb2.ModelReference(digest=found.digest, name=found.name)
    return ChatModel(reference, found.name, found.context_length)
