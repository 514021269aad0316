"""What tests ask of engines that have a real model, and how much the answers may differ."""

from __future__ import annotations

from collections.abc import Sequence

from evalpool_worker.engine.base import (
    ChoiceQuestion,
    GenerationChunk,
    GenerationEnd,
    QuestionResult,
    SamplingParameters,
)
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.shape import EngineSettings

# In another batch a question's cells lie elsewhere, so attention adds in another order; rounding
# activations to 8 bits then makes small differences large. Over 200 questions of Social IQa a sum
# moved by 0.05 on average and 0.5 at most, a third of its distance from 32-bit floats.
PACKING_NOISE = 1.0
MEAN_PACKING_NOISE = 0.15

# Smaller than what the tests put into them.
SMALL = EngineSettings(
    threads=1,
    score_context_tokens=64,
    score_batch_tokens=32,
    generate_context_tokens=64,
    generate_chunk_tokens=32,
    generate_slots=4,
)
NO_MEMORY = r"A context of \d+ tokens takes \d+ MiB of memory, and this worker has 0 MiB left"


async def sums(
    engine: LlamaCppEngine, questions: Sequence[ChoiceQuestion]
) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    async for outcome in engine.score(questions):
        assert isinstance(outcome, QuestionResult), outcome
        results[outcome.id] = [score.sum_logprob for score in outcome.scores]
    return results


async def collect(
    engine: LlamaCppEngine, prompt: str, parameters: SamplingParameters
) -> tuple[str, GenerationEnd]:
    *chunks, end = [event async for event in engine.generate(prompt, parameters)]
    assert isinstance(end, GenerationEnd)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, GenerationChunk)), end
