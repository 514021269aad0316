"""A stream's text comes in few messages, at once at first and whole at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evalpool_worker.engine.base import FinishReason, GenerationChunk, GenerationEnd
from evalpool_worker.engine.base import SamplingParameters as Parameters
from evalpool_worker.engine.generation_stream import GenerationStream
from evalpool_worker.engine.tokenisation import Tokeniser

STEP = 0.010
LOGITS = np.zeros(1, dtype=np.float32)


class Script:
    """A sampler that chooses given tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = iter(tokens)

    def sample(self, *_: Any) -> int:
        """The next of them."""
        return next(self._tokens)


@pytest.fixture
async def events(tokeniser: Tokeniser) -> list[list[GenerationChunk | GenerationEnd]]:
    """What each of eight tokens brings, 10 ms apart, with messages at most every 25 ms."""
    tokens = tokeniser.encode(" one two three four five six seven eight")[:8]
    now = [0.0]
    parameters = Parameters(max_tokens=8)
    sampler: Any = Script(tokens)
    stream = GenerationStream([1], parameters, sampler, tokeniser, 100, lambda: now[0], 0.025)
    told = []
    context: Any = None
    for _ in range(8):
        told.append(stream.sample(context, 0, LOGITS)[0])
        now[0] += STEP
    return told


def test_the_first_text_comes_at_once_and_the_next_not_before_its_time(
    events: list[list[GenerationChunk | GenerationEnd]],
) -> None:
    sizes = [
        [len(event.token_ids) for event in step if isinstance(event, GenerationChunk)]
        for step in events
    ]
    assert sizes == [[1], [], [], [3], [], [], [3], [1]]


def test_the_end_brings_what_was_held_back(
    events: list[list[GenerationChunk | GenerationEnd]],
) -> None:
    chunks = [event for step in events for event in step if isinstance(event, GenerationChunk)]
    assert "".join(chunk.text for chunk in chunks) == " one two three four five six seven eight"
    end = events[-1][-1]
    assert isinstance(end, GenerationEnd)
    assert (end.finish_reason, end.completion_tokens) == (FinishReason.LENGTH, 8)
