"""What all questions of a call begin with is computed once, and changes no score."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool_worker.engine.base import ChoiceQuestion
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.shape import EngineSettings
from evalpool_worker.engine.shared_prefix import shared_prefix
from evalpool_worker.engine.tokenisation import Tokeniser
from tests.worker.engine.calls import PACKING_NOISE, sums

EXAMPLES = "Question: Ann thanked Bob. How would Bob feel?\nAnswer: glad about it\n\n" * 16


@pytest.fixture
async def engine(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """With one scoring context, so that every token computed can be counted."""
    made = LlamaCppEngine(EngineSettings(threads=1))
    await made.load(smollm2_path, "digest")
    yield made
    await made.close()


def after(examples: str, questions: list[ChoiceQuestion]) -> list[ChoiceQuestion]:
    """The questions with examples before them."""
    return [ChoiceQuestion(q.id, examples + q.prompt, q.choices) for q in questions]


def prefix_length(tokeniser: Tokeniser, text: str) -> int:
    """About how many tokens the text has."""
    return len(tokeniser.encode(text))


async def test_examples_before_every_question_are_computed_once(
    engine: LlamaCppEngine, tokeniser: Tokeniser, everyday: list[ChoiceQuestion]
) -> None:
    examples = prefix_length(tokeniser, EXAMPLES)

    async def computed(questions: list[ChoiceQuestion]) -> int:
        before = engine.load_now.computed_tokens
        await sums(engine, questions)
        return engine.load_now.computed_tokens - before

    some, others = everyday[:20], everyday[20:40]
    without, others_without = await computed(some), await computed(others)
    assert await computed(after(EXAMPLES, some)) < without + examples + 40
    # Other questions with the same examples find them there.
    assert await computed(after(EXAMPLES, others)) < others_without + examples / 2


async def test_sums_are_those_of_each_question_alone(
    engine: LlamaCppEngine, everyday: list[ChoiceQuestion]
) -> None:
    questions = after(EXAMPLES, everyday[:12])
    together = await sums(engine, questions)
    for question in questions:
        # A single question has nothing to share, and comes after what clears the context.
        [alone] = (await sums(engine, [question])).values()
        assert together[question.id] == pytest.approx(alone, abs=PACKING_NOISE)


async def test_examples_longer_than_the_usual_context_are_shared_too(
    smollm2_path: Path, everyday: list[ChoiceQuestion]
) -> None:
    engine = LlamaCppEngine(EngineSettings(threads=1, score_context_tokens=256))
    await engine.load(smollm2_path, "digest")
    questions = after(EXAMPLES, everyday[:6])
    together = await sums(engine, questions)
    for question in questions[:2]:
        [alone] = (await sums(engine, [question])).values()
        assert together[question.id] == pytest.approx(alone, abs=PACKING_NOISE)
    await engine.close()


async def test_calls_with_other_beginnings_follow_each_other(
    engine: LlamaCppEngine, everyday: list[ChoiceQuestion]
) -> None:
    other = EXAMPLES.replace("Ann", "Eve")
    first = await sums(engine, after(EXAMPLES, everyday[:6]))
    await sums(engine, after(other, everyday[:6]))
    await sums(engine, everyday[:6])
    again = await sums(engine, after(EXAMPLES, everyday[:6]))
    for number, values in first.items():
        assert again[number] == pytest.approx(values, abs=PACKING_NOISE)


def test_what_few_tokens_or_one_question_begin_with_is_not_held(tokeniser: Tokeniser) -> None:
    short = [ChoiceQuestion(str(i), f"Question: {i}", (" yes", " no")) for i in range(3)]
    assert shared_prefix(short, tokeniser) == ()
    long = after(EXAMPLES, short)
    assert shared_prefix(long[:1], tokeniser) == ()
    tokens = shared_prefix(long, tokeniser)
    for question in long:
        own = tokeniser.encode_pair(question.prompt, " yes")
        assert own.tokens[: len(tokens)] == tokens
        assert len(tokens) < own.prompt_tokens


def test_a_beginning_that_the_next_characters_change_is_cut_where_the_tokens_differ(
    tokeniser: Tokeniser,
) -> None:
    questions = [
        ChoiceQuestion(str(i), f"{EXAMPLES}under{end}", (" yes", " no"))
        for i, end in enumerate(("stand", "", "ground"))
    ]
    tokens = shared_prefix(questions, tokeniser)
    assert len(tokens) >= prefix_length(tokeniser, EXAMPLES) - 1
    for question in (questions[0], questions[-1]):
        assert tokeniser.encode_pair(question.prompt, " yes").tokens[: len(tokens)] == tokens
