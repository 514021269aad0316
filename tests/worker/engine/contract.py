"""What the tests of the engines' contract ask, and how."""

from __future__ import annotations

import pytest

from evalpool_worker.engine.base import (
    ChoiceQuestion,
    Engine,
    GenerationChunk,
    GenerationEnd,
    Prompt,
    QuestionFailure,
    QuestionResult,
    SamplingParameters,
)

QUESTIONS = tuple(
    ChoiceQuestion(
        id=f"q{number}",
        prompt=f"Q: Kim gave {number} apples to Robin. What will Robin do next?\nA:",
        choices=(" say thank you", " say nothing", " paint the wall", " say thank you twice"),
    )
    for number in range(12)
)
# What only an engine does that has the weights and the tokeniser: a server's are out of reach.
own_model = pytest.mark.parametrize("engine_name", ["fake", "llama_cpp"], indirect=True)

GREEDY = SamplingParameters(max_tokens=24, temperature=0.0)
SEEDED = SamplingParameters(max_tokens=24, temperature=1.0, seed=7)


async def score(
    engine: Engine, questions: tuple[ChoiceQuestion, ...]
) -> dict[str, QuestionResult | QuestionFailure]:
    outcomes = [outcome async for outcome in engine.score(questions)]
    assert sorted(outcome.id for outcome in outcomes) == sorted(q.id for q in questions)
    return {outcome.id: outcome for outcome in outcomes}


async def generate(
    engine: Engine, prompt: Prompt, parameters: SamplingParameters
) -> tuple[list[GenerationChunk], GenerationEnd]:
    events = [event async for event in engine.generate(prompt, parameters)]
    end = events.pop()
    assert isinstance(end, GenerationEnd)
    chunks = [event for event in events if isinstance(event, GenerationChunk)]
    assert len(chunks) == len(events)
    assert sum(len(chunk.token_ids) for chunk in chunks) >= end.completion_tokens
    return chunks, end


def text_of(chunks: list[GenerationChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)
