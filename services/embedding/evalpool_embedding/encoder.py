"""The model at work: calls that come at once share a batch, and long work does not block them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from evalpool_embedding.model import EmbeddingModel, Vectors

MOST_TOGETHER = 64


@dataclass(slots=True)
class _Waiting:
    texts: Sequence[str]
    done: asyncio.Future[Vectors]


class Encoder:
    """Runs a model in threads: one for calls, one for sets that are being embedded.

    Args:
        model: The model.
    """

    def __init__(self, model: EmbeddingModel) -> None:
        self.model = model
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._call_thread = ThreadPoolExecutor(1, thread_name_prefix="encode-call")
        self._set_thread = ThreadPoolExecutor(1, thread_name_prefix="encode-set")

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of a call's texts, one a row; calls at once are computed together."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(texts, loop.create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = loop.create_task(self._drain())
        return await waiting.done

    async def encode_set(self, texts: Sequence[str]) -> Vectors:
        """The vectors of a set's documents, one a row, beside the calls."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._set_thread, self.model.encode, texts)

    async def close(self) -> None:
        """Wait for what is being computed, end the threads, give back the model's memory."""
        if self._running is not None:
            await self._running
        for thread in (self._call_thread, self._set_thread):
            await asyncio.to_thread(thread.shutdown)
        self.model.close()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while together := self._take():
                texts = [text for waiting in together for text in waiting.texts]
                try:
                    vectors = await loop.run_in_executor(
                        self._call_thread, self.model.encode, texts
                    )
                except Exception as error:  # it is each caller's to see
                    _fail(together, error)
                else:
                    _settle(together, vectors)
        finally:
            self._running = None

    def _take(self) -> list[_Waiting]:
        """Calls to compute together, first come first served; those given up are left out."""
        taken: list[_Waiting] = []
        texts = 0
        while self._waiting and (not taken or texts + len(self._waiting[0].texts) <= MOST_TOGETHER):
            waiting = self._waiting.pop(0)
            if not waiting.done.done():
                taken.append(waiting)
                texts += len(waiting.texts)
        return taken


def _settle(together: Sequence[_Waiting], vectors: Vectors) -> None:
    ends = np.cumsum([len(waiting.texts) for waiting in together])
    for waiting, end in zip(together, ends, strict=True):
        if not waiting.done.done():
            waiting.done.set_result(vectors[end - len(waiting.texts) : end])


def _fail(together: Sequence[_Waiting], error: Exception) -> None:
    for waiting in together:
        if not waiting.done.done():
            waiting.done.set_exception(error)
