"""The messages of one ScoreChoices: progress, what has begun, results, the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from evalpool.inference.v1 import inference_pb2
from evalpool_worker.relay import Relay

RESULTS_A_MESSAGE = 64


class ScoreStream:
    """Makes messages of what the work tells.

    Args:
        reference: The request's reference, which every message gives back.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._relay: Relay[inference_pb2.ScoreChoicesResponse] = Relay(RESULTS_A_MESSAGE)
        self._scored = 0
        self._failed = 0
        self._usage = inference_pb2.Usage()

    def progress(self, stage: str, share: float) -> None:
        """Tell what the worker is at before it can score, and how far, 0 to 1."""
        progress = inference_pb2.ScoreProgress(stage=stage, stage_progress=share)
        self._relay.tell(self._message(progress=progress))

    def started(self, ids: Sequence[str], worker: str) -> None:
        """Tell that the worker has taken up the questions."""
        started = inference_pb2.ScoreStarted(ids=ids, worker=worker)
        self._relay.tell(self._message(started=started))

    def result(self, result: inference_pb2.QuestionResult) -> None:
        """Tell what became of a question."""
        if result.HasField("failure"):
            self._failed += 1
        else:
            self._scored += 1
        self._usage.prompt_tokens += result.usage.prompt_tokens
        self._usage.computed_tokens += result.usage.computed_tokens
        results = inference_pb2.QuestionResults(results=[result])
        self._relay.tell(self._message(results=results))

    async def during(
        self, work: Coroutine[Any, Any, None]
    ) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
        """Run the work, yield the messages, then the one that completes them.

        Raises:
            Exception: What the work raised.
        """
        async with aclosing(self._relay.during(work)) as told:  # type: ignore[type-var]
            async for messages in told:
                for message in _joined(messages):
                    yield message
        complete = inference_pb2.ScoreComplete(
            scored=self._scored, failed=self._failed, usage=self._usage
        )
        yield self._message(complete=complete)

    def _message(self, **event: Any) -> inference_pb2.ScoreChoicesResponse:
        return inference_pb2.ScoreChoicesResponse(reference=self._reference, **event)


def _joined(
    messages: Sequence[inference_pb2.ScoreChoicesResponse],
) -> list[inference_pb2.ScoreChoicesResponse]:
    """The messages, with results that follow each other in one."""
    joined: list[inference_pb2.ScoreChoicesResponse] = []
    for message in messages:
        if joined and joined[-1].HasField("results") and message.HasField("results"):
            joined[-1].results.results.extend(message.results.results)
        else:
            joined.append(message)
    return joined
